// Where pictures appear: in the making, then made; before the first one, prompts that work.
import { html, useEffect, useState, Button, Icon } from "./ui.js";
import { connection, get, session } from "./api.js";
import { deleted, draft, jobs, lasting, replace, sketches, useStore } from "./state.js";
import { said } from "./said.js";
import { t } from "./text.js";
import { addReference, builtIn, cancel, complain, editPicture, ended, remove } from "./jobs.js";
import { DeleteButton, entryOf, Picture, promptText } from "./pictures.js";
import { livePicture } from "./live.js";
import { SAMPLES } from "./samples.js";
import { Viewer } from "./viewer.js";
import { seconds } from "./plan.js";

const TICK_MS = 500;
const EARLIER = 12;

function useClock(on) {
  const [now, setNow] = useState(Date.now() / 1000);
  useEffect(() => {
    if (!on) return undefined;
    const timer = setInterval(() => setNow(Date.now() / 1000), TICK_MS);
    return () => clearInterval(timer);
  }, [on]);
  return now;
}

/** What is left, judged by how far it has come. */
function remaining(job, now) {
  if (!job.started_at || job.progress < 0.05) return null;
  const spent = Math.max(0, now - job.started_at);
  return (spent * (1 - job.progress)) / job.progress;
}

function Making({ job }) {
  const now = useClock(true);
  const left = remaining(job, now);
  const percent = Math.round(job.progress * 100);
  const told = job.state === "queued"
    ? (job.queue_position ? t("{n} before it in the queue", { n: job.queue_position }) : t("waiting for the worker"))
    : left === null ? t("beginning") : t("{time} left", { time: seconds(left) });
  return html`<div class="making">
    ${job.preview && html`<img src=${job.preview} alt=${t("The picture in the making")} />`}
    <div class="making-foot">
      <div class="bar" role="progressbar" aria-label=${t("Progress")} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${percent}><i style=${{ width: `${percent}%` }}></i></div>
      <span>${told}</span>
      <${Button} icon="stop" label=${t("Cancel")} onClick=${() => cancel(job.id)} />
    </div>
  </div>`;
}

function Failed({ job }) {
  const told = job.state === "cancelled" ? t("Cancelled; it cost nothing.") : job.error?.message ? said(job.error.message) : t("It could not be drawn.");
  return html`<div class="failed"><p>${told}</p><${Button} onClick=${() => remove(job.id).catch(complain)}>${t("Remove")}<//></div>`;
}

/** Small pictures are not blown up beyond twice their size, or what can be looked at. */
const shownWidth = (job) => Math.max(560, job.width * 2);

export function Tile({ job, onOpen }) {
  const ready = job.state === "ready";
  return html`<article class=${`tile ${job.state}`} data-job=${job.id} style=${{ aspectRatio: `${job.width} / ${job.height}`, maxWidth: `${shownWidth(job)}px` }}>
    ${!ended(job) && html`<${Making} job=${job} />`}
    ${ended(job) && !ready && html`<${Failed} job=${job} />`}
    ${ready && html`<button type="button" class="open" onClick=${() => onOpen(job.id)} aria-label=${t("Open: {prompt}", { prompt: promptText(job.prompt ?? "").slice(0, 120) })}>
        <${Picture} image=${`job:${job.id}`} alt="" /></button>
      <div class="over">
        <${Button} icon="reference" label=${t("Use as reference")} onClick=${() => addReference(entryOf(job))} />
        <${Button} icon="edit" label=${t("Edit this")} onClick=${() => editPicture(entryOf(job))} />
        <${DeleteButton} id=${job.id} />
      </div>`}
  </article>`;
}

function Welcome() {
  const { about } = useStore(session);
  const begin = (prompt, seed) => {
    replace(draft, { mode: "prose", prompt, seed, seedLocked: true }, t("The sample is in the prompt box: now draw it, or change its words."));
    const box = document.querySelector(".composer textarea");
    box?.focus();
  };
  return html`<div class="welcome">
    <h2>${t("Let there be a picture.")}</h2>
    ${builtIn(about)
      ? html`<p>${t("The built-in model knows a small table-top world: spheres, cubes, cylinders and cones, small or large, matte or shiny, on plain floors. It is at its best with one or two things beside each other, and draws at 128 pixels; larger pictures are enlarged.")}</p>`
      : html`<p>${t("Describe a picture, or begin with one of these.")}</p>`}
    <ul class="samples">
      ${SAMPLES.map(([prompt, seed], index) => html`<li key=${prompt}><button type="button" onClick=${() => begin(prompt, seed)}>
        <img src="/studio/samples.webp" alt="" width="256" height="256" style=${{ objectPosition: `0 ${(index / (SAMPLES.length - 1)) * 100}%` }} /><span>${prompt}</span></button></li>`)}
    </ul>
  </div>`;
}

/** The latest pictures that are not from this visit. */
function useEarlier(shown) {
  const [pictures, setPictures] = useState([]);
  const count = shown.filter((job) => job.state === "ready").length;
  const { key } = useStore(session);
  const passing = useStore(sketches);
  const gone = useStore(deleted);
  const { up } = useStore(connection);
  useEffect(() => {
    if (key && up) get(`/v1/gallery?limit=${EARLIER + 24}`).then((told) => setPictures(told.pictures)).catch(() => setPictures((now) => now));
  }, [key, up, count, gone]);
  const ids = new Set([...shown.map((job) => job.id), ...passing]);
  return lasting(pictures, ids).slice(0, EARLIER);
}

export function Stage() {
  const all = useStore(jobs);
  const live = useStore(livePicture);
  const [open, setOpen] = useState(null);
  const earlier = useEarlier(all);
  const group = all.length ? all.filter((job) => (job.group ?? job.id) === (all[0].group ?? all[0].id)) : [];
  const rest = all.filter((job) => !group.includes(job));
  return html`<section class="stage" aria-label=${t("Pictures")}>
    ${live && html`<figure class="live" style=${{ aspectRatio: `${live.width} / ${live.height}` }}><img src=${live.source} alt=${t("Live picture")} /><figcaption><${Icon} name="bolt" />${t("Live")}</figcaption></figure>`}
    ${!live && group.length === 0 && earlier.length === 0 && html`<${Welcome} />`}
    ${group.length > 0 && html`<div class=${`group n${Math.min(group.length, 4)}`}>${group.map((job) => html`<${Tile} key=${job.id} job=${job} onOpen=${setOpen} />`)}</div>`}
    ${rest.length > 0 && html`<div class="strip">${rest.map((job) => html`<${Tile} key=${job.id} job=${job} onOpen=${setOpen} />`)}</div>`}
    ${earlier.length > 0 && html`<section class="earlier"><header><h2>${t("Earlier")}</h2><a href="#/gallery">${t("All pictures")}</a></header>
      <div class="strip">${earlier.map((picture) => html`<${Tile} key=${picture.id} job=${{ ...picture, state: "ready" }} onOpen=${setOpen} />`)}</div></section>`}
    ${group.length === 0 && !live && earlier.length > 0 && html`<${Welcome} />`}
    ${open && html`<${Viewer} id=${open} onClose=${() => setOpen(null)} />`}
  </section>`;
}
