// Calls of the service that this page came from. The token is kept for this tab only (sessionStorage).

const KEY = "spinescore-token";

export class Problem extends Error {
  constructor(status, { detail, code = null, next_step: nextStep = null }) {
    super(detail);
    Object.assign(this, { status, detail, code, nextStep });
  }
}

const gone = () =>
  new Problem(0, {
    detail: "the service does not answer",
    next_step: "See that it runs and that the network is there; then try again. Your changes are still here.",
  });

export const token = () => sessionStorage.getItem(KEY);

export function setToken(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

async function request(method, path, { body, signal, headers = {} } = {}) {
  const fields = { ...headers };
  if (token()) fields.Authorization = `Bearer ${token()}`;
  if (body !== undefined) fields["Content-Type"] = "application/json";
  const options = { method, headers: fields, signal, cache: "no-store" };
  if (body !== undefined) options.body = JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : gone();
  }
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

async function problemOf(answer) {
  const detail = `the service answered ${answer.status} ${answer.statusText}`;
  const document = await answer.json().catch(() => ({}));
  return new Problem(answer.status, { detail, ...document });
}

// The end of a call may also be cut off: that is the same problem to the reader.
async function whole(reading) {
  try {
    return await reading;
  } catch (error) {
    throw error.name === "AbortError" ? error : gone();
  }
}

export const get = async (path, options) => whole((await request("GET", path, options)).json());

export const post = async (path, body, options) => whole((await request("POST", path, { ...options, body })).json());

// Return the grey values of a view, and its window: centre and width.
export async function pixelsOf(view, options) {
  const answer = await request("GET", view.url, options);
  const [centre, width] = (answer.headers.get("Spinescore-Window") ?? "").split(" ").map(Number);
  const pixels = new Uint16Array(await whole(answer.arrayBuffer()));
  if (pixels.length === view.rows * view.columns && width > 0) return { ...view, pixels, window: { centre, width } };
  throw new Problem(0, { detail: "the radiograph did not arrive whole", next_step: "Load it again." });
}

export const blob = async (path, options) => whole((await request("GET", path, options)).blob());

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Listen to changes of studies until `signal` aborts. `onState(null)`: the stream is open; `onState(problem)`: it is
// not, and is opened again. EventSource would be shorter, but it cannot send the token.
export async function listen(onStudy, onState, signal) {
  let last = null;
  for (let tries = 0; !signal.aborted; tries++) {
    try {
      const headers = { Accept: "text/event-stream", ...(last === null ? {} : { "Last-Event-ID": last }) };
      const answer = await request("GET", "/v1/events", { signal, headers });
      onState(null);
      tries = 0;
      for await (const event of events(answer.body)) {
        last = event.id ?? last;
        if (event.event === "study") onStudy(JSON.parse(event.data));
      }
    } catch (error) {
      if (signal.aborted) return;
      onState(error instanceof Problem ? error : gone());
      if (error.status === 401 || error.status === 403) return;
    }
    await pause(Math.min(1000 * 2 ** tries, 15000));
  }
}

// Yield the events of a stream (https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6).
export async function* events(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let [text, event] = ["", {}];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
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
