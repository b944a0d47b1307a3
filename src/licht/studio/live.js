// Live mode: a small picture of four steps that follows the words. Each one replaces the one before.
import { useEffect, useState } from "./ui.js";
import { ApiError, call, dataUri, fileOf, follow, post } from "./api.js";
import { sketches, store, unfinished } from "./state.js";
import { bodyOf, complain, ended, LIVE_MODEL, LIVE_STEPS, promptOf } from "./jobs.js";
import { t } from "./text.js";

const PAUSE_MS = 350;
const SEED = 7;
export const livePicture = store(null);

/** Draws `draft` after each pause in typing, while live mode is on. */
export function useLive(draft) {
  const [state, setState] = useState("");
  const prompt = promptOf(draft).trim();
  const text = JSON.stringify({ ...bodyOf(draft), num: 1 });
  useEffect(() => {
    if (!draft.live || !prompt) { livePicture.set(null); return undefined; }
    const stop = new AbortController();
    const timer = setTimeout(() => {
      sketch(JSON.parse(text), stop.signal, setState).catch((error) => {
        if (!(error instanceof ApiError && error.status === 422)) complain(error);
      });
    }, PAUSE_MS);
    return () => { clearTimeout(timer); stop.abort(); };
  }, [draft.live, text]);
  return { state };
}

/** The body of a sketch for that of a picture. */
export const sketchOf = (body) => ({ ...body, num: 1, model: LIVE_MODEL, steps: LIVE_STEPS, guidance: undefined, seed: body.seed ?? SEED, previews: true });

const left = [...unfinished.get().ids];
/** Remove what the page before this one, in the same tab, had no time to remove. */
export function tidy() {
  for (const id of left.splice(0)) forget(id);
}

/** One sketch, from the request to the removal of its job. Aborted, it is not shown any more, but still removed. */
async function sketch(body, signal, setState) {
  const job = await post("/v1/jobs", sketchOf(body));
  unfinished.change({ ids: [...unfinished.get().ids, job.id] });
  sketches.set((now) => new Set(now).add(job.id));
  try {
    let drawn = null;
    await follow(job.id, (event, data) => {
      if (event === "preview" && !signal.aborted) livePicture.set({ source: data.image, width: data.width, height: data.height });
      if (event === "end" && data.state === "ready") drawn = data;
    }, signal);
    if (!drawn || signal.aborted) return;
    // the page shows a copy of its own: a link would lead nowhere once the job is removed
    const source = await dataUri(await fileOf(drawn.id));
    if (signal.aborted) return;
    livePicture.set({ source, width: drawn.width, height: drawn.height });
    setState(t("Live picture drawn"));
  } finally {
    await forget(job.id);
  }
}

/** Sketches are worth no place in the gallery. One that is still being drawn ends within a step. */
async function forget(id) {
  try {
    if (!ended(await post(`/v1/jobs/${id}/cancel`))) await follow(id, () => {});
    await call("DELETE", `/v1/jobs/${id}`);
  } catch (error) {
    if (!(error instanceof ApiError)) complain(error);
    // the service is away: the next page in this tab tries again
    else if (!error.status) return;
  }
  unfinished.change({ ids: unfinished.get().ids.filter((each) => each !== id) });
}
