#!/usr/bin/env python3
"""Makes reference.json: what the default models answer by an independent implementation.

Independent: Python's `tokenizers` 0.2x and `onnxruntime`, pooling by numpy; no code of this
repository. Every text is run alone, in a batch of one row.

    python3 -m venv venv && venv/bin/pip install onnxruntime==1.31.1 tokenizers numpy
    venv/bin/python make_reference.py ~/.cache/mobula/models > reference.json
"""
import base64
import glob
import json
import pathlib
import sys

import numpy
import onnxruntime
from tokenizers import Tokenizer

TEXTS = [
    "a",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "How do I reset my password?",
    "I forgot the credentials of my account, what now?",
    "Das Schiff fährt über die Straße von Gibraltar.",
    "Les élèves étaient à l'école, où il faisait chaud.",
    "東京は日本の首都です。",
    "Москва — столица России.",
    "مرحبا بالعالم",
    "emoji: 🚀🔥 and a family 👨‍👩‍👧‍👦!",
    "tabs\tand\nnew lines\r\nand   many    spaces",
    "ﬁligree ligatures, Ａfull width, and a soft\u00adhyphen",
    "3.14159 != 2.71828; x^2 + y^2 = z^2 (100% sure, $5.00)",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "snake_case camelCase kebab-case http://example.com/path?query=1#frag",
    "An actor runtime serves models from many replicas, each of which owns its own engine thread.",
    "[CLS] special tokens [SEP] in the [MASK] text [PAD] are not words",
    "A paragraph of some length, so that it fills several dozen tokens. " * 3,
    "The history of bridges begins with a tree that fell across a stream. " * 10,
    "One sentence, again and again, until the model cannot take any more of it. " * 60,
]

QUERIES = [
    ["what is the capital of france",
     ["Paris is the capital and largest city of France.",
      "Berlin is the capital of Germany.",
      "Bananas are rich in potassium.",
      "The Eiffel Tower was built in 1889."]],
    ["how to boil an egg",
     ["The stock market fell sharply on Monday.",
      "Place the egg in boiling water and cook it for eight minutes for a firm yolk.",
      "Eggs are laid by hens.",
      "Water is made of hydrogen and oxygen."]],
    ["who wrote hamlet",
     ["Hamlet is a small settlement, smaller than a village.",
      "Charles Dickens wrote Oliver Twist.",
      "The tragedy of Hamlet was written by William Shakespeare around 1600.",
      "Denmark is a country in northern Europe."]],
    ["what causes tides",
     ["Tides are caused by the gravitational pull of the moon and the sun on the oceans.",
      "Laundry detergent comes in many brands.",
      "The moon was first walked on in 1969.",
      "Rivers carry sediment to the sea."]],
    ["how do vaccines work",
     ["A car engine burns fuel to make heat and motion.",
      "Flights to Rome leave every morning.",
      "The flu season lasts from autumn to spring.",
      "Vaccines train the immune system to recognize a pathogen without causing the disease."]],
    ["symptoms of iron deficiency",
     ["Steel is an alloy of iron and carbon.",
      "Fatigue, pale skin and shortness of breath are common symptoms of iron deficiency anemia.",
      "The golden gate bridge is painted orange.",
      "Irons are used to press clothes."]],
]

SENTENCES = [
    ["I love this movie, it is wonderful!", "POSITIVE"],
    ["A beautiful, moving and brilliant film.", "POSITIVE"],
    ["An absolute delight from start to finish.", "POSITIVE"],
    ["The best performance of her career, simply superb.", "POSITIVE"],
    ["Funny, charming and full of heart.", "POSITIVE"],
    ["This restaurant is excellent and the staff were lovely.", "POSITIVE"],
    ["I love this!", "POSITIVE"],
    ["This is awful.", "NEGATIVE"],
    ["I hate this movie, it is terrible.", "NEGATIVE"],
    ["A boring, lifeless and stupid mess.", "NEGATIVE"],
    ["The worst film I have ever seen.", "NEGATIVE"],
    ["A dull waste of time and money.", "NEGATIVE"],
    ["The plot makes no sense and the acting is dreadful.", "NEGATIVE"],
    ["The service was horrible and the food was disgusting.", "NEGATIVE"],
]


class Model:
    def __init__(self, cache, name, tokens_max):
        (directory,) = glob.glob(f"{cache}/{name}/*")
        self.tokenizer = Tokenizer.from_file(f"{directory}/tokenizer.json")
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(tokens_max)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(f"{directory}/model.onnx", options)

    def run(self, *text):
        encoding = self.tokenizer.encode(*text)
        values = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        feed = {k: numpy.array([v], dtype=numpy.int64) for k, v in values.items()}
        return encoding.ids, self.session.run(None, feed)[0][0]


def packed(vector):
    return base64.b64encode(numpy.asarray(vector, dtype="<f4").tobytes()).decode()


def main(cache):
    embedder = Model(cache, "sentence-transformers--all-MiniLM-L6-v2", 256)
    reranker = Model(cache, "cross-encoder--ms-marco-MiniLM-L-12-v2", 512)
    encoder = Model(cache, "mobula--gte-small-sentiment", 512)
    data = pathlib.Path(__file__).resolve().parents[2] / "data"
    head = json.loads((data / "gte-small-sentiment-head.json").read_text())
    weight, bias = numpy.array(head["weight"]), numpy.array(head["bias"])

    embeddings = []
    for text in TEXTS:
        ids, hidden = embedder.run(text)
        mean = hidden.astype(numpy.float64).mean(axis=0)
        vector = mean / numpy.linalg.norm(mean)
        embeddings.append({"text": text, "ids": ids, "vector": packed(vector)})
    rerank = []
    for query, texts in QUERIES:
        scores = [round(float(reranker.run(query, text)[1][0]), 4) for text in texts]
        rerank.append({"query": query, "texts": texts, "scores": scores})
    classify = []
    for text, label in SENTENCES:
        pooled = encoder.run(text)[1].astype(numpy.float64).mean(axis=0)
        logits = [round(float(x), 4) for x in weight @ pooled + bias]
        classify.append({"text": text, "label": label, "logits": logits})
    parts = {"embed": embeddings, "rerank": rerank, "classify": classify}
    lines = [
        f'"{name}": [\n' + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]"
        for name, rows in parts.items()
    ]
    print("{" + ", ".join(lines) + "}")


main(sys.argv[1])
