// Live mode: a small picture of four steps that follows the words. Each one replaces the one before.
import { useEffect, useRef, useState } from "./ui.js";
import { ApiError, call, follow, post } from "./api.js";
import { store } from "./state.js";
import { bodyOf, complain, LIVE_MODEL, LIVE_STEPS, promptOf } from "./jobs.js";
import { t } from "./text.js";

const PAUSE_MS = 350;
const SEED = 7;
export const livePicture = store(null);

/** Draws `draft` after each pause in typing, while live mode is on. */
export function useLive(draft) {
  const [state, setState] = useState("");
  const last = useRef(null);
  const prompt = promptOf(draft).trim();
  const text = JSON.stringify({ ...bodyOf(draft), num: 1 });
  useEffect(() => {
    if (!draft.live || !prompt) { livePicture.set(null); return undefined; }
    const stop = new AbortController();
    const timer = setTimeout(() => {
      redraw(JSON.parse(text), last, stop.signal, setState).catch((error) => {
        if (error.name !== "AbortError" && !(error instanceof ApiError && error.status === 422)) complain(error);
      });
    }, PAUSE_MS);
    return () => { clearTimeout(timer); stop.abort(); };
  }, [draft.live, text]);
  useEffect(() => () => forget(last), []);
  return { state };
}

async function redraw(body, last, signal, setState) {
  forget(last);
  const job = await post("/v1/jobs", { ...body, model: LIVE_MODEL, steps: LIVE_STEPS, guidance: undefined, seed: body.seed ?? SEED, previews: true });
  last.current = job.id;
  if (signal.aborted) return;
  await follow(job.id, (event, data) => {
    if (signal.aborted) return;
    if (event === "preview") livePicture.set({ source: data.image, width: data.width, height: data.height });
    if (event === "end" && data.state === "ready") {
      livePicture.set({ source: data.result.url, width: data.width, height: data.height });
      setState(t("Live picture drawn"));
    }
  }, signal);
}

/** Live pictures are drafts: the next one, or leaving, removes them. What is being drawn ends within a step. */
async function forget(last) {
  const id = last.current;
  last.current = null;
  if (!id) return;
  try {
    const job = await post(`/v1/jobs/${id}/cancel`);
    if (job.state === "running") await follow(id, () => {});
    await call("DELETE", `/v1/jobs/${id}`);
  } catch (error) {
    if (!(error instanceof ApiError)) complain(error);
  }
}
