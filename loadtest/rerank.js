// Ranking: one query and five texts per request to /rerank.
import http from 'k6/http';
import { check } from 'k6';
import exec from 'k6/execution';
import { base, json, options as make, sentence } from './common.js';

export { handleSummary } from './common.js';
export const options = make(8);

export default function () {
  const n = exec.scenario.iterationInTest;
  const texts = [0, 1, 2, 3, 4].map((i) => sentence(n + i));
  const answer = http.post(`${base}/rerank`, JSON.stringify({ query: sentence(n + 5), texts }), json);
  check(answer, { 'five scores': (a) => a.status === 200 && a.json().length === 5 });
}
