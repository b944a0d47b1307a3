// The one place that speaks HTTP: to the service that this page came from, and to no other.
import { store } from "./state.js";

const KEY = "licht.key";
const PROBE_MS = 1000;

/** `refused`: the service did not know the key that was here. */
export const session = store({ key: null, about: null, refused: false });
export const connection = store({ up: true });

/** What the service said was wrong. `field` is the dotted path of the input to blame, where there is one. */
export class ApiError extends Error {
  constructor(status, message, code, field) {
    super(message);
    this.status = status;
    this.code = code;
    this.field = field;
  }
}

/** Take the key from the address, so that it is neither bookmarked nor shared, or from this tab's own storage. */
export function takeKey() {
  const match = /^#key=([\w-]+)/.exec(location.hash);
  if (match) {
    sessionStorage.setItem(KEY, match[1]);
    history.replaceState(null, "", location.pathname);
  }
  session.set((now) => ({ ...now, key: sessionStorage.getItem(KEY), refused: false }));
}

export function signIn(key) {
  sessionStorage.setItem(KEY, key);
  session.set({ key, about: null, refused: false });
}

export function signOut(refused = false) {
  sessionStorage.removeItem(KEY);
  session.set({ key: null, about: null, refused });
}

let probing = false;
function down() {
  connection.set({ up: false });
  if (probing) return;
  probing = true;
  const probe = async () => {
    try {
      if ((await fetch("/livez")).ok) {
        probing = false;
        connection.set({ up: true });
        return;
      }
    } catch { /* still away */ }
    setTimeout(probe, PROBE_MS);
  };
  setTimeout(probe, PROBE_MS);
}

/** A request with the key. Raises `ApiError`; status 0 where nobody answered. */
export async function send(method, path, body, { signal, type, token } = {}) {
  const headers = { "x-key": session.get().key || "" };
  if (token) headers["idempotency-key"] = token;
  let payload = body;
  if (body !== undefined && !(body instanceof Blob)) {
    headers["content-type"] = "application/json";
    payload = JSON.stringify(body);
  } else if (type) {
    headers["content-type"] = type;
  }
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: payload, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    down();
    throw new ApiError(0, "", "away", null);
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

async function refusal(answer) {
  let told = {};
  try {
    told = await answer.json();
  } catch { /* a proxy's page: the status has to do */ }
  const first = Array.isArray(told.detail) ? told.detail[0] : null;
  const path = first ? first.loc.filter((part) => part !== "body" && part !== "query").join(".") : null;
  const message = told.message || (first && first.msg) || `${answer.status}`;
  if (answer.status === 403 && told.code === "not_authenticated") signOut(true);
  return new ApiError(answer.status, message, told.code || "", path);
}

export async function call(method, path, body, options) {
  const answer = await send(method, path, body, options);
  return answer.status === 204 ? null : answer.json();
}

export const get = (path, options) => call("GET", path, undefined, options);
export const post = (path, body, options) => call("POST", path, body, options);

/** Follow a job until it ends. `on` gets (event, data). Breaks are bridged: the stream begins at the present again. */
export async function follow(id, on, signal) {
  for (let wait = 300; ; wait = Math.min(wait * 2, 4000)) {
    try {
      const answer = await send("GET", `/v1/jobs/${id}/events`, undefined, { signal });
      for await (const [event, data] of events(answer.body)) {
        wait = 300;
        on(event, data);
        if (event === "end") return;
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error instanceof ApiError && error.status === 404) return on("end", {});
      if (error instanceof ApiError && error.status === 403) throw error;
    }
    await new Promise((done) => setTimeout(done, wait));
  }
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const name = /^event: (.*)$/m.exec(block);
      const data = /^data: (.*)$/m.exec(block);
      if (name && data) yield [name[1], JSON.parse(data[1])];
    }
  }
}

const blobs = new Map();
/** An address for a picture that needs the key: `reference:ID` or `job:ID`. The latest 200 are kept. */
export function pictureOf(image) {
  if (!blobs.has(image)) {
    const [kind, id] = image.split(":");
    const path = kind === "reference" ? `/v1/references/${id}/picture` : `/v1/jobs/${id}/picture`;
    const loading = send("GET", path).then(async (answer) => URL.createObjectURL(await answer.blob()));
    loading.catch(() => blobs.delete(image));
    blobs.set(image, loading);
    if (blobs.size > 200) {
      const [oldest, gone] = blobs.entries().next().value;
      blobs.delete(oldest);
      gone.then(URL.revokeObjectURL, () => {});
    }
  }
  return blobs.get(image);
}

/** The file as it is, byte for byte, so that its credentials stay whole; in another `format` the service signs it anew. */
export async function fileOf(jobId, format) {
  return (await send("GET", `/v1/jobs/${jobId}/picture${format ? `?format=${format}` : ""}`)).blob();
}

export function dataUri(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(blob);
  });
}

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
