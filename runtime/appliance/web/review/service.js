// Calls of the service that this page came from. The token is kept for this tab only (sessionStorage).

const KEY = "spinescore-token";
const MOST_MS = 120000; // for an answer
const SILENT_MS = 45000; // the stream has a sign of life every 15 s

class Problem extends Error {
  constructor(status, { detail, code = null, next_step: nextStep = null }) {
    super(detail);
    Object.assign(this, { status, detail, code, nextStep });
  }
}

const gone = () =>
  new Problem(0, {
    detail: "the service does not answer",
    next_step: "See that it runs and that the network is there; then try again.",
  });

export const token = () => sessionStorage.getItem(KEY);

export const setToken = (value) => sessionStorage.setItem(KEY, value);

// The next reader at this tab begins anew, also with the name.
export const signOut = () => sessionStorage.clear();

// Return an error as the reader is told it. A call that the page itself ended is no problem.
const problemOf = (error, signal) => (signal?.aborted || error instanceof Problem ? error : gone());

async function request(method, path, { body, signal, headers = {} } = {}) {
  const fields = { ...headers };
  if (token()) fields.Authorization = `Bearer ${token()}`;
  if (body !== undefined) fields["Content-Type"] = "application/json";
  const options = { method, headers: fields, signal, cache: "no-store" };
  if (body !== undefined) options.body = JSON.stringify(body);
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  if (answer.status === 401) dispatchEvent(new Event("signed-out"));
  const detail = `the service answered ${answer.status} ${answer.statusText}`;
  throw new Problem(answer.status, { detail, ...(await answer.json().catch(() => ({}))) });
}

// Return what `read` makes of a whole answer. The answer may also be cut off in the middle, or never end.
async function whole(method, path, read, { signal, ...options } = {}) {
  const limit = AbortSignal.timeout(MOST_MS);
  try {
    return await read(await request(method, path, {
      ...options, signal: signal ? AbortSignal.any([signal, limit]) : limit,
    }));
  } catch (error) {
    throw problemOf(error, signal);
  }
}

export const get = (path, options) => whole("GET", path, (answer) => answer.json(), options);

export const post = (path, body, options) => whole("POST", path, (answer) => answer.json(), { ...options, body });

export const blob = (path, options) => whole("GET", path, (answer) => answer.blob(), options);

// Return the grey values of a view, and its window: centre and width.
export const pixelsOf = (view, options) => whole("GET", view.url, async (answer) => {
  if (answer.headers.get("ETag") !== `"${view.sha256}"`) {
    throw new Problem(0, { detail: "the study has got another radiograph meanwhile", next_step: "Load the page again." });
  }
  const [centre, width] = (answer.headers.get("Spinescore-Window") ?? "").split(" ").map(Number);
  const bytes = await answer.arrayBuffer();
  if (bytes.byteLength !== 2 * view.rows * view.columns || !(width > 0)) {
    throw new Problem(0, { detail: "the radiograph did not arrive whole", next_step: "Load it again." });
  }
  return { ...view, pixels: new Uint16Array(bytes), window: { centre, width } };
}, options);

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Listen to changes of studies until `signal` aborts. `onState(null)`: the stream is open; `onState(problem)`: it is
// not, and is opened again. EventSource would be shorter, but it cannot send the token. A stream without a sign of life
// for `silentMs` is dead: a network that is gone does not close it.
export async function listen(onStudy, onState, signal, silentMs = SILENT_MS) {
  for (let tries = 0; !signal.aborted; tries++) {
    const silence = new AbortController();
    let timer = null;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), silentMs);
    };
    try {
      heard();
      const either = AbortSignal.any([signal, silence.signal]);
      const answer = await request("GET", "/v1/events", { signal: either, headers: { Accept: "text/event-stream" } });
      onState(null);
      tries = 0;
      for await (const event of events(answer.body, heard)) {
        if (event.event === "study") onStudy(JSON.parse(event.data));
      }
    } catch (error) {
      if (signal.aborted) return;
      onState(problemOf(error));
      if (error.status === 401 || error.status === 403) return;
    } finally {
      clearTimeout(timer);
    }
    await pause(Math.min(1000 * 2 ** tries, 15000));
  }
}

// Yield the events of a stream (https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6).
async function* events(stream, heard) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let [text, event] = ["", {}];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    text += decoder.decode(value, { stream: true });
    const lines = text.split(/\r\n|\n|\r/);
    text = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (event.data !== undefined) yield event;
        event = {};
        continue;
      }
      const [, name, content] = /^([^:]*):? ?(.*)$/.exec(line);
      if (name === "data" && event.data !== undefined) event.data += `\n${content}`;
      else if (name) event[name] = content;
    }
  }
}
