// The token: asked for when the head wants one, kept for this tab alone.

import { byId, setHidden, setText } from './dom.js';

const KEY = 'mobula-admin-token';

export const token = () => sessionStorage.getItem(KEY);

// `changed` is called when there is another token, or none any more.
export function listen(changed) {
  byId('token-form').addEventListener('submit', (event) => {
    event.preventDefault();
    const given = byId('token').value.trim();
    // What no header can carry is no token of ours.
    if (!/^[\x21-\x7e]+$/.test(given)) {
      setText(byId('token-error'), 'A token has printable ASCII characters and no spaces.');
      return;
    }
    sessionStorage.setItem(KEY, given);
    changed();
  });
  byId('forget').addEventListener('click', () => {
    sessionStorage.removeItem(KEY);
    changed();
  });
}

export function ask(wasShown) {
  sessionStorage.removeItem(KEY);
  setHidden(byId('forget'), true);
  setText(byId('token-error'), wasShown ? 'The head refused this token.' : '');
  const form = byId('token-form');
  const isNew = form.hidden;
  setHidden(form, false);
  if (isNew || wasShown) {
    byId('token').value = '';
    byId('token').focus();
  }
}

export function accepted() {
  setHidden(byId('token-form'), true);
  byId('token').value = '';
  setText(byId('token-error'), '');
  setHidden(byId('forget'), token() === null);
}
