// Elements. Text goes in as text, never as HTML, whatever a name contains; and what did not
// change is not touched, so that scrolling, selection and open parts stay as they are.

const SVG = 'http://www.w3.org/2000/svg';

export const byId = (id) => document.getElementById(id);

export function el(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

export function svg(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

export function setText(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

export function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

export function setClass(node, className) {
  if (node.className !== className) node.className = className;
}

export function setTitle(node, title) {
  if (node.title !== title) node.title = title;
}

const children = new WeakMap();

// Gives `parent` one child for each item, in their order. A row is {node, update(item)}; the one
// of a key lives as long as the key does.
export function keyed(parent, items, keyOf, make) {
  const before = children.get(parent) ?? new Map();
  const rows = new Map();
  for (const item of items) {
    const key = keyOf(item);
    const row = before.get(key) ?? make(item);
    row.update(item);
    rows.set(key, row);
  }
  for (const [key, row] of before) if (!rows.has(key)) row.node.remove();
  let next = anchor(parent);
  for (const { node } of rows.values()) {
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
  children.set(parent, rows);
}

// Where rows begin: behind what the page itself has there.
function anchor(parent) {
  return [...parent.children].find((child) => child.tagName !== 'THEAD') ?? null;
}

export function chip() {
  const word = el('span');
  const dot = el('span', 'dot');
  dot.setAttribute('aria-hidden', 'true');
  const node = el('span', 'chip', dot, word);
  return {
    node,
    set(status) {
      setText(word, status.toLowerCase().replaceAll('_', ' '));
      setClass(node, `chip tone-${toneOf(status)}`);
    },
  };
}

const OK = ['RUNNING', 'HEALTHY', 'ready', 'running', 'up to date'];
const TROUBLE = ['DEPLOY_FAILED', 'UNHEALTHY', 'out of reach', 'failed', 'rolled_back', 'behind'];
const PAST = ['superseded', 'deleted', 'STOPPING'];

export function toneOf(status) {
  if (OK.includes(status)) return 'ok';
  if (TROUBLE.includes(status)) return 'trouble';
  return PAST.includes(status) ? 'past' : 'progress';
}
