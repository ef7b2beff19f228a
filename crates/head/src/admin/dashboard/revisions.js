// The configs of before: what became of each, and the command that goes back to it.

import { byId, chip, el, keyed, setClass, setHidden, setText, setTitle } from './dom.js';
import { date, duration } from './format.js';

const COPIED_MS = 1500;
// Where the command line looks by itself.
const DEFAULT_ADDRESS = 'http://127.0.0.1:8265';

export function renderRevisions({ history }, nowS) {
  setHidden(byId('revisions-none'), history.revisions.length > 0);
  const shown = history.revisions.map((record) => ({ ...record, nowS, current: history.current }));
  keyed(byId('revisions'), shown, (record) => record.revision, revisionRow);
}

function revisionRow() {
  const number = el('strong');
  const status = chip();
  const inForce = el('span', 'in-force', 'in force');
  const when = el('span', 'muted when');
  const reason = el('p');
  const errors = el('p', 'message');
  const command = el('code');
  const copy = el('button', 'copy', 'Copy');
  copy.type = 'button';
  const back = el('div', 'command', command, copy);
  copy.addEventListener('click', () => copied(command, copy));
  const node = el('li', '', el('div', 'line', number, status.node, inForce, when), reason, errors, back);
  return {
    node,
    update(record) {
      const isCurrent = record.revision === record.current;
      setText(number, `Revision ${record.revision}`);
      status.set(record.outcome);
      setHidden(inForce, !isCurrent);
      setClass(node, isCurrent ? 'current' : '');
      setText(when, `${duration(record.nowS - record.time_s)} ago`);
      setTitle(when, date(record.time_s));
      setText(reason, record.reason);
      const failed = Object.entries(record.errors ?? {}).map(([app, why]) => `${app}: ${why}`);
      setText(errors, failed.join('\n'));
      setHidden(errors, failed.length === 0);
      setText(command, rollback(record.revision));
      setHidden(back, isCurrent || record.outcome === 'deleted');
    },
  };
}

function rollback(revision) {
  const address = location.origin === DEFAULT_ADDRESS ? '' : ` --address ${location.origin}`;
  return `mobula rollback ${revision}${address}`;
}

// Browsers lend the clipboard only to pages of this machine or over HTTPS; elsewhere the text is
// selected, for Ctrl-C.
async function copied(command, button) {
  try {
    await navigator.clipboard.writeText(command.textContent);
    setText(button, 'Copied');
  } catch {
    getSelection().selectAllChildren(command);
    setText(button, 'Selected');
  }
  setTimeout(() => setText(button, 'Copy'), COPIED_MS);
}
