// Sentiment: two sentences per request to /infer.
import http from 'k6/http';
import { check } from 'k6';
import exec from 'k6/execution';
import { base, json, options as make, sentence } from './common.js';

export { handleSummary } from './common.js';
export const options = make(10);

export default function () {
  const n = exec.scenario.iterationInTest;
  const body = JSON.stringify({ inputs: [sentence(n), sentence(n + 3)] });
  const answer = http.post(`${base}/infer`, body, json);
  check(answer, { 'two labels': (a) => a.status === 200 && (a.body.match(/"label"/g) || []).length === 2 });
}
