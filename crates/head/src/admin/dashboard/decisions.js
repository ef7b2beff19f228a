// What the head decided and what happened lately, with the reason of each.

import { byId, el, keyed, setHidden, setText, setTitle } from './dom.js';
import { clock, count, date } from './format.js';

// Until somebody asks for all of them.
const SHOWN = 10;

let showsAll = false;

export function listenDecisions(changed) {
  byId('decisions-all').addEventListener('click', () => {
    showsAll = !showsAll;
    changed();
  });
}

export function renderDecisions(data, view) {
  const found = data.decisions.filter((d) => view.matches(d.subject, d.what, d.detail, d.why));
  setHidden(byId('decisions-none'), found.length > 0);
  const shown = showsAll ? found : found.slice(0, SHOWN);
  // One that is counted anew moves up, and stays the same line.
  const seen = new Map();
  const numbered = shown.toReversed().map((decision) => {
    const name = `${decision.subject} ${decision.what}`;
    const nth = (seen.get(name) ?? 0) + 1;
    seen.set(name, nth);
    return { ...decision, key: `${name} ${nth}` };
  });
  keyed(byId('decisions'), numbered.toReversed(), (decision) => decision.key, decisionRow);
  const button = byId('decisions-all');
  setHidden(button, found.length <= SHOWN);
  setText(button, showsAll ? 'Show fewer' : `Show all ${count(found.length)}`);
}

function decisionRow() {
  const time = el('time');
  const subject = el('strong');
  const what = el('span');
  const why = el('p', 'message');
  return {
    node: el('li', '', time, el('div', '', subject, ' ', what, why)),
    update(decision) {
      setText(time, clock(decision.time_s));
      setTitle(time, date(decision.time_s));
      setText(subject, name(decision.subject));
      setTitle(subject, decision.subject);
      const times = decision.count > 1 ? ` × ${count(decision.count)}` : '';
      setText(what, `${decision.what}${times}`);
      setTitle(what, decision.detail);
      const said = decision.count > 1 ? decision.why : [detail(decision), decision.why].filter(Boolean).join(' · ');
      setText(why, said);
      setHidden(why, said === '');
    },
  };
}

// Ids of workers and routers are 56 digits.
const short = (text) => text.replace(/\b([0-9a-f]{8})[0-9a-f]{48}\b/g, '$1');
const name = (subject) => short(subject);
const detail = (decision) => short(decision.detail);
