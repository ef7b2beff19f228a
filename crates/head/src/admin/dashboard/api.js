// Asks the head, and only reads.

const ANSWER_MS_MAX = 10_000;
const OVERVIEW = '/api/mobula/overview';

// The head wants a token, or another one.
export class Refused extends Error {
  constructor(wasShown) {
    super(wasShown ? 'the token was refused' : 'a token is needed');
    this.wasShown = wasShown;
  }
}

// Nobody answers, or nobody who leads.
export class Away extends Error {}

export async function overview(token) {
  const answer = await ask(OVERVIEW, token);
  // While heads are upgraded one after the other.
  if (answer === null) throw new Away('it is of a release without this page');
  return answer;
}

// null: there is no such deployment any more.
export function replicas(token, application, deployment) {
  const query = new URLSearchParams({ application, deployment });
  return ask(`${OVERVIEW}?${query}`, token);
}

async function ask(path, token) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, {
      headers,
      cache: 'no-store',
      credentials: 'omit',
      signal: AbortSignal.timeout(ANSWER_MS_MAX),
    });
    if (answer.ok) return await answer.json();
  } catch (error) {
    throw new Away(error.name === 'TimeoutError' ? 'it does not answer in time' : '');
  }
  if (answer.status === 401 || answer.status === 403) throw new Refused(Boolean(token));
  if (answer.status === 404) return null;
  const why = await answer.text().catch(() => '');
  throw new Away(said(why) || `it answers ${answer.status}`);
}

function said(text) {
  try {
    return JSON.parse(text).error ?? text;
  } catch {
    return text;
  }
}
