// Jobs from the click to the picture: the body of a request, and following what became of it.
import { ApiError, call, follow, get, post, session } from "./api.js";
import { deleted, draft, jobs, lasting, replace, toast } from "./state.js";
import { said } from "./said.js";
import { t } from "./text.js";

const FINAL = new Set(["ready", "failed", "moderated", "cancelled"]);
/** Browsers open six connections to a service: some must stay free for everything else. */
const STREAMS = 3;
export const LIVE_MODEL = "flux-2-klein-4b";
export const LIVE_STEPS = 4;
export const PREVIEW_STEPS = 6;
export const FINAL_STEPS = 50;

export const ended = (job) => FINAL.has(job.state);

/** Whether the model draws that comes with Licht: it knows one small world. */
export const builtIn = (about) => Boolean(about?.weights?.startsWith("nano"));

/** Megapixels that a draft begins with: 256 by 256 px where the weights draw small pictures, else one. */
export function usualMegapixels(about) {
  const small = about?.native ? about.native.width * about.native.height < 512 * 512 : builtIn(about);
  return small ? 0.0625 : 1;
}

/** Width and height in whole tokens of 16 px, for a ratio and an area. */
export function sizeOf(aspect, megapixels) {
  const [across, down] = aspect.split(":").map(Number);
  const area = megapixels * 1024 * 1024;
  const whole = (side) => Math.max(64, Math.round(side / 16) * 16);
  return { width: whole(Math.sqrt((area * across) / down)), height: whole(Math.sqrt((area * down) / across)) };
}

export const ASPECTS = ["1:1", "4:3", "3:2", "16:9", "3:4", "2:3", "9:16"];
/** The ratio that a picture of this size has, or nearly has. */
export function nearestAspect({ width, height }) {
  const off = (aspect) => { const [across, down] = aspect.split(":").map(Number); return Math.abs(Math.log((width * down) / (height * across))); };
  return ASPECTS.reduce((best, aspect) => (off(aspect) < off(best) ? aspect : best));
}

/** The shape of a draft: without a reference it cannot be that of the reference. */
export const aspectOf = (now) => (now.aspect === "auto" && !now.references.length ? ASPECTS[0] : now.aspect);

/** The prompt as it goes out: prose as it was typed, a structured prompt as JSON text. */
export const promptOf = (now) => (now.mode === "structured" ? now.json : now.prompt);

const given = (values) => Object.fromEntries(Object.entries(values).filter(([name, value]) => value !== null && value !== undefined && (value !== "" || name === "prompt")));

/** The body of `POST /v1/jobs` for a draft. */
export function bodyOf(now, changes = {}) {
  const { start } = now;
  const aspect = aspectOf(now);
  const size = aspect === "auto" || start ? {} : sizeOf(aspect, now.megapixels ?? usualMegapixels(session.get().about));
  const references = now.references.map(({ image, role, strength, name }) => given({ image, role, strength, name }));
  return given({
    prompt: promptOf(now),
    model: now.model,
    num: now.num,
    previews: true,
    ...size,
    seed: now.seed,
    steps: now.steps,
    guidance: now.guidance,
    finish: now.finish === "none" ? null : now.finish,
    output_format: now.format,
    prompt_upsampling: now.upsample || null,
    references: references.length ? references : null,
    start: start?.image,
    start_strength: start ? start.strength : null,
    mask: start?.mask,
    extend: start?.extend && Object.values(start.extend).some(Boolean) ? start.extend : null,
    ...changes,
  });
}

/** What has ended stays so: the answer to a cancellation can come after the event that tells of the end. */
function put(id, changes) {
  const late = (job) => ended(job) && changes.state && !ended(changes);
  jobs.set((now) => now.map((job) => (job.id === id && !late(job) ? { ...job, ...changes } : job)));
}

const waiting = [];
const following = new Map();
function followNext() {
  while (following.size < STREAMS && waiting.length) {
    const id = waiting.shift();
    const stop = new AbortController();
    following.set(id, stop);
    follow(id, (event, data) => heard(id, event, data), stop.signal)
      .catch((error) => put(id, { state: "failed", error: { message: error.message } }))
      .finally(() => { following.delete(id); followNext(); });
  }
}

function heard(id, event, data) {
  if (event === "preview") put(id, { preview: data.image });
  else if (event === "end" && !data.id) jobs.set((now) => now.filter((job) => job.id !== id));
  else put(id, event === "end" ? { ...data, preview: null } : data);
}

/** Show these jobs, and follow them to their ends. */
export function watch(told) {
  const known = new Set(jobs.get().map((job) => job.id));
  jobs.set((now) => [...told.filter((job) => !known.has(job.id)), ...now]);
  for (const job of told) if (!ended(job) && !following.has(job.id) && !waiting.includes(job.id)) waiting.push(job.id);
  followNext();
}

/** Queue a draft. Returns its jobs; raises `ApiError`. */
export async function submit(body, token = crypto.randomUUID()) {
  const first = await post("/v1/jobs", body, { token });
  const ids = first.batch && first.batch.length > 1 ? first.batch : [first.id];
  const told = ids.map((id, index) => ({ ...first, id, seed: first.seed + index, body, group: first.id }));
  watch(told);
  return told;
}

export async function cancel(id) {
  try {
    put(id, await post(`/v1/jobs/${id}/cancel`));
  } catch (error) {
    complain(error);
  }
}

/** Remove a job, its row and its picture. */
export async function remove(id) {
  await call("DELETE", `/v1/jobs/${id}`);
  jobs.set((now) => now.filter((job) => job.id !== id));
  deleted.set((now) => now + 1);
}

/** After signing in or a break: what is still being drawn is shown again. */
export async function resume() {
  try {
    for (const state of ["running", "queued"]) {
      const told = await get(`/v1/jobs?state=${state}&limit=50`);
      watch(lasting(told.jobs));
    }
    for (const job of jobs.get()) {
      if (!ended(job) && !following.has(job.id) && !waiting.includes(job.id)) waiting.push(job.id);
    }
    followNext();
  } catch { /* the banner already says that nobody answers */ }
}

/** Errors of a click, where no field is to blame. */
export function complain(error) {
  const away = error instanceof ApiError && error.status === 0;
  toast.set({ kind: "error", away, text: away ? t("Licht does not answer. Nothing is lost: try again when it is back.") : said(error.message) });
}

/** Start a new draft from how a picture was made. */
export function reuse(recipe, changes = {}) {
  const now = draft.get();
  const structured = typeof recipe.prompt === "object";
  replace(draft, {
    mode: structured ? "structured" : "prose",
    prompt: structured ? now.prompt : recipe.prompt,
    json: structured ? JSON.stringify(recipe.prompt, null, 2) : now.json,
    model: recipe.model || now.model,
    seed: recipe.seed ?? null,
    seedLocked: recipe.seed !== undefined,
    steps: recipe.steps ?? null,
    guidance: recipe.guidance ?? null,
    ...changes,
  }, t("The picture's settings have replaced yours."));
  location.hash = "#/create";
}

const MOST_REFERENCES = 10;
/** Put a picture into the tray: `reference:ID` or `job:ID`. */
export function addReference(entry) {
  const now = draft.get();
  if (now.references.length >= MOST_REFERENCES) {
    toast.set({ kind: "error", text: t("Ten references are the most; remove one first.") });
    return;
  }
  if (now.references.some((reference) => reference.image === entry.image)) return;
  draft.change({ references: [...now.references, { role: null, strength: 1, name: "", ...entry }] });
}

/** Begin from a picture: what is painted or added at its borders is drawn anew. */
export function editPicture(entry) {
  draft.change({ start: { strength: 1, mask: null, extend: null, ...entry }, num: 1 });
  location.hash = "#/create";
}
