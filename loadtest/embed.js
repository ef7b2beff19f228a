// Embeddings: one sentence per request to /v1/embeddings.
import http from 'k6/http';
import { check } from 'k6';
import exec from 'k6/execution';
import { base, json, options as make, sentence } from './common.js';

export { handleSummary } from './common.js';
export const options = make(25);

export default function () {
  const body = JSON.stringify({ input: sentence(exec.scenario.iterationInTest) });
  const answer = http.post(`${base}/v1/embeddings`, body, json);
  check(answer, { 'one vector': (a) => a.status === 200 && a.json('data.0.embedding').length > 0 });
}
