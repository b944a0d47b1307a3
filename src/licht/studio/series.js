// A storyboard: named characters that live across frames, one prompt a frame, one style.
import { html, useEffect, useRef, useState, Button, Choice, Drop, Field, Icon } from "./ui.js";
import { ApiError, connection, fileOf, get, pictureOf, post, save, send, session } from "./api.js";
import { deleted, EMPTY_STORY, replace, story, useStore } from "./state.js";
import { t } from "./text.js";
import { addReference, complain, nearestAspect, sizeOf, usualMegapixels } from "./jobs.js";
import { entryOf, keepAll, PickButton, Picture } from "./pictures.js";
import { PromptBox } from "./prompt.js";
import { ModelSelect, ShapeChoice } from "./controls.js";
import { Cost, usePlans } from "./plan.js";
import { Tile } from "./stage.js";
import { Viewer } from "./viewer.js";
import { zip } from "./zip.js";

const LOOK_MS = 700;
const NAME = /^[A-Za-z][\w-]*$/;
const MOST_FRAMES = 40;

function Characters({ characters, change }) {
  const set = (index, changes) => change(characters.map((each, other) => (other === index ? { ...each, ...changes } : each)));
  const add = (index) => (entry) => change(story.get().characters.map((each, other) => (other === index ? { ...each, images: [...each.images, entry] } : each)));
  return html`<section class="cast"><header><h2>${t("Characters and objects")}</h2></header>
    <p class="hint">${t("Name them once, and write @name in the frames. Pictures and a description keep them the same.")}</p>
    ${characters.map((character, index) => html`<fieldset class="subcard" key=${index}><legend>${character.name ? `@${character.name}` : t("New")}</legend>
      <div class="name-and-words">
        <${Field} label=${t("Name")} error=${character.name && !NAME.test(character.name) ? t("Letters and digits, beginning with a letter.") : null}>${(field) => html`<input ...${field} value=${character.name} onInput=${(event) => set(index, { name: event.target.value })} />`}<//>
        <${Field} label=${t("Description")}>${(field) => html`<input ...${field} value=${character.description} placeholder=${t("a small blue cube with dots")} onInput=${(event) => set(index, { description: event.target.value })} />`}<//>
      </div>
      <div class="cast-pictures">
        ${character.images.map((image) => html`<span class="thumb" key=${image.image}><${Picture} image=${image.image} alt=${image.name} />
          <${Button} icon="close" label=${t("Remove this picture")} onClick=${() => set(index, { images: character.images.filter((each) => each !== image) })} /></span>`)}
        <${Drop} onFiles=${(files) => keepAll(files, add(index))} label=${t("Add pictures of {name}", { name: character.name })}><${Icon} name="plus" /><//>
        <${PickButton} label=${t("Gallery")} title=${t("Choose a picture")} onPick=${add(index)} />
        <${Button} icon="trash" label=${t("Remove {name}", { name: character.name })} onClick=${() => change(characters.filter((_, other) => other !== index))} />
      </div>
    </fieldset>`)}
    <${Button} icon="plus" onClick=${() => change([...characters, { name: "", description: "", images: [] }])}>${t("Add a character")}<//>
  </section>`;
}

function Frames({ now, names, series, onOpen, onAgain, onAdd }) {
  const done = series?.frames.length ?? 0;
  const set = (index, prompt) => story.change({ frames: now.frames.map((each, other) => (other === index ? { ...each, prompt } : each)) });
  return html`<ol class="frames">
    ${now.frames.map((frame, index) => {
      const drawn = series?.frames[index];
      return html`<li key=${index} class="frame">
        ${drawn?.job ? html`<${Tile} job=${drawn.job} onOpen=${onOpen} />` : html`<div class="frame-empty"><b>${index + 1}</b></div>`}
        <${PromptBox} value=${frame.prompt} onInput=${(prompt) => set(index, prompt)} names=${names} label=${t("Frame {n}", { n: index + 1 })} placeholder=${t("What happens in frame {n}?", { n: index + 1 })} rows=${2} />
        <div class="frame-foot">
          ${drawn && html`<${Button} icon="dice" onClick=${() => onAgain(index)}>${t("Draw again")}<//>`}
          ${drawn?.job?.state === "ready" && html`<${Button} icon="reference" label=${t("Use as reference")} onClick=${() => addReference(entryOf(drawn.job))} />`}
          ${series && index >= done && html`<${Button} kind="secondary" disabled=${!frame.prompt.trim()} onClick=${() => onAdd(index)}>${t("Draw this frame")}<//>`}
          ${index >= done && now.frames.length > 1 && html`<${Button} icon="trash" label=${t("Remove frame {n}", { n: index + 1 })} onClick=${() => story.change({ frames: now.frames.filter((_, other) => other !== index) })} />`}
        </div></li>`;
    })}
    ${(!series || now.frames.length === done) && now.frames.length < MOST_FRAMES && html`<li class="frame add"><button type="button" onClick=${() => story.change({ frames: [...now.frames, { prompt: "" }] })}><${Icon} name="plus" />${t("Add a frame")}</button></li>`}
  </ol>`;
}

/** The series that is being shown, looked at again until it has ended. */
function useSeries(id) {
  const [series, setSeries] = useState(null);
  const { up } = useStore(connection);
  const [turn, setTurn] = useState(0);
  const gone = useStore(deleted);
  useEffect(() => {
    if (!id) { setSeries(null); return undefined; }
    if (!up) return undefined;
    let timer;
    let over = false;
    const look = async () => {
      try {
        const told = await get(`/v1/series/${id}`);
        if (over) return;
        setSeries(told);
        if (told.state === "running") timer = setTimeout(look, LOOK_MS);
      } catch (error) {
        if (over) return;
        if (error instanceof ApiError && error.status === 404) story.change({ id: null });
        else complain(error);
      }
    };
    look();
    return () => { over = true; clearTimeout(timer); };
  }, [id, up, turn, gone]);
  return [series, setSeries, () => setTurn((now) => now + 1)];
}

function bodyOf(now, about) {
  const { width, height } = sizeOf(now.aspect, usualMegapixels(about));
  const named = now.characters.filter((character) => character.name);
  const characters = Object.fromEntries(named.map(({ name, description, images }) => [name, { images: images.map(({ image }) => image), description: description || undefined }]));
  return {
    title: now.title || t("Untitled"),
    model: now.model,
    style: now.style || undefined,
    seed: now.seed,
    seeds: now.seeds,
    width,
    height,
    output_format: "png",
    characters,
    frames: now.frames.filter((frame) => frame.prompt.trim()).map(({ prompt }) => ({ prompt })),
  };
}

/** What the frames ask for, and how often: the price depends on the pictures of those who appear. */
function plansOf(now, about) {
  const { width, height } = sizeOf(now.aspect, usualMegapixels(about));
  const asked = new Map();
  for (const { prompt } of now.frames.filter((frame) => frame.prompt.trim())) {
    const images = now.characters.filter(({ name }) => name && new RegExp(`@${name}(?![\\w-])`).test(prompt)).flatMap((character) => character.images);
    const references = images.map(({ image }) => ({ image }));
    const body = JSON.stringify({ prompt: t("Untitled"), model: now.model, width, height, ...(references.length && { references }) });
    asked.set(body, (asked.get(body) ?? 0) + 1);
  }
  return { bodies: [...asked.keys()].map((body) => JSON.parse(body)), times: [...asked.values()] };
}

/** A value as TOML has it: texts, numbers, lists of them and true or false are written as JSON does. */
const toml = (name, value) => `${name} = ${JSON.stringify(value)}\n`;
const told = (values) => Object.entries(values).filter(([, value]) => value !== null && value !== undefined);

/** The story as `licht series` reads it, and the pictures of its characters. Each frame has the seed that drew it. */
async function storyOf(series) {
  const { characters = {}, frames, ...rest } = series.story;
  const pictures = [];
  let text = told(rest).filter(([, value]) => typeof value !== "object").map(([name, value]) => toml(name, value)).join("");
  for (const [name, { images, ...more }] of Object.entries(characters)) {
    const named = [];
    for (const [index, image] of (images ?? []).entries()) {
      const blob = await (await fetch(await pictureOf(image))).blob();
      named.push(`${name}-${index + 1}.${blob.type.replace("image/", "")}`);
      pictures.push([named.at(-1), await bytesOf(blob)]);
    }
    text += `\n[characters.${name}]\n${told({ ...more, images: named }).map(([key, value]) => toml(key, value)).join("")}`;
  }
  for (const { prompt, job } of series.frames) text += `\n[[frames]]\n${toml("prompt", prompt)}${job ? toml("seed", job.seed) : ""}`;
  return [...pictures, ["story.toml", new TextEncoder().encode(text)]];
}

const bytesOf = async (blob) => new Uint8Array(await blob.arrayBuffer());

function Exports({ series }) {
  const drawn = series.frames.filter((frame) => frame.job?.state === "ready");
  const stem = series.title.replace(/[^\w-]+/g, "-").replace(/^-+|-+$/g, "").toLowerCase() || "series";
  const attempt = (work) => () => work().catch(complain);
  const sheetOf = async () => (await send("GET", `/v1/series/${series.id}/sheet`)).blob();
  const sheet = attempt(async () => save(await sheetOf(), `${stem}-sheet.png`));
  const archive = attempt(async () => {
    const blobs = await Promise.all(drawn.map((frame) => fileOf(frame.job.id)));
    const files = await Promise.all(blobs.map(async (blob, index) => [`frame-${String(drawn[index].number).padStart(2, "0")}.${blob.type.replace("image/", "")}`, await bytesOf(blob)]));
    files.push(["sheet.png", await bytesOf(await sheetOf())]);
    files.push(...(await storyOf(series)));
    save(zip(files), `${stem}.zip`);
  });
  return html`<${Button} icon="gallery" disabled=${!drawn.length} onClick=${sheet}>${t("Contact sheet")}<//>
    <${Button} icon="download" disabled=${!drawn.length} onClick=${archive}>${t("Zip")}<//>`;
}

function Past({ onPick }) {
  const [all, setAll] = useState([]);
  useEffect(() => { get("/v1/series").then((told) => setAll(told.series)).catch(complain); }, []);
  if (!all.length) return null;
  return html`<label class="past">${t("Earlier stories")} <select value="" onChange=${(event) => event.target.value && onPick(all.find((each) => each.id === event.target.value))}>
    <option value="">${t("choose")}</option>${all.map((each) => html`<option key=${each.id} value=${each.id}>${each.title}</option>`)}</select></label>`;
}

/** A story as the service keeps it, put back into the form. */
function restored({ id, title, story: told, frames }) {
  return {
    id,
    title,
    style: told.style ?? "",
    aspect: frames[0]?.job ? nearestAspect(frames[0].job) : EMPTY_STORY.aspect,
    model: told.model ?? EMPTY_STORY.model,
    seed: told.seed ?? EMPTY_STORY.seed,
    seeds: told.seeds ?? EMPTY_STORY.seeds,
    characters: Object.entries(told.characters ?? {}).map(([name, { images, description }]) => ({ name, description: description ?? "", images: (images ?? []).map((image) => ({ image, name })) })),
    frames: frames.map(({ prompt }) => ({ prompt })),
  };
}

const EXAMPLE = {
  title: "A cube goes for a walk",
  style: "",
  characters: [{ name: "hero", description: "a small matte blue cube", images: [] }],
  frames: [
    { prompt: "@hero on a gray floor, light from the left" },
    { prompt: "@hero to the left of a large shiny red sphere on a gray floor" },
    { prompt: "@hero to the right of a large matte yellow cylinder on a gray floor" },
  ],
};

export function Series() {
  const now = useStore(story);
  const { about } = useStore(session);
  const [series, setSeries, again] = useSeries(now.id);
  const [open, setOpen] = useState(null);
  const [busy, setBusy] = useState(false);
  const token = useRef(null);
  const names = now.characters.filter((each) => each.name).map((each) => [each.name, each.description, each.images[0] ? html`<${Picture} image=${each.images[0].image} alt="" />` : null]);
  const wrong = now.characters.some((each) => each.name && !NAME.test(each.name));
  const asked = plansOf(now, about);
  const costs = usePlans(asked.bodies);
  const filled = now.frames.filter((frame) => frame.prompt.trim()).length;
  const draw = async () => {
    setBusy(true);
    token.current ??= crypto.randomUUID();
    try {
      const told = await post("/v1/series", bodyOf(now, about), { token: token.current });
      setSeries(told);
      story.change({ id: told.id, frames: told.frames.map(({ prompt }) => ({ prompt })) });
      token.current = null;
    } catch (error) {
      if (error.status) token.current = null;
      complain(error);
    } finally {
      setBusy(false);
    }
  };
  const add = async (index) => {
    if (busy) return;
    setBusy(true);
    try {
      setSeries(await post(`/v1/series/${now.id}/frames`, { prompt: now.frames[index].prompt }));
      again();
    } catch (error) {
      complain(error);
    } finally {
      setBusy(false);
    }
  };
  const redraw = async (index) => {
    try {
      const frame = series.frames[index];
      // other words with the same seed, so that everybody stays who they are; the same words with another
      const { prompt } = now.frames[index];
      const changed = prompt !== frame.prompt && prompt.trim() ? { prompt, ...(frame.job && { seed: frame.job.seed }) } : {};
      setSeries(await post(`/v1/series/${now.id}/frames/${frame.number}`, changed));
      again();
    } catch (error) {
      complain(error);
    }
  };
  return html`<header class="view-head"><h1>${t("Series")}</h1>
      <${Past} key=${now.id} onPick=${(told) => replace(story, restored(told), t("Another story is open."))} />
      <${Button} icon="plus" onClick=${() => replace(story, EMPTY_STORY, t("A new story has begun."))}>${t("New story")}<//>
      ${!now.id && !now.characters.length && html`<${Button} icon="wand" onClick=${() => replace(story, EXAMPLE, t("The example is here: now draw it, or change its words."))}>${t("Show me an example")}<//>`}
    </header>
    <div class="story">
      <section class="card story-set" aria-label=${t("Story")}>
        <${Field} label=${t("Title")}>${(field) => html`<input ...${field} value=${now.title} onInput=${(event) => story.change({ title: event.target.value })} />`}<//>
        <${Field} label=${t("Style of all frames")}>${(field) => html`<input ...${field} value=${now.style} placeholder=${t("light from the left, on a gray floor")} onInput=${(event) => story.change({ style: event.target.value })} />`}<//>
        <${Characters} characters=${now.characters} change=${(characters) => story.change({ characters })} />
        <${Field} label=${t("Model")}>${(field) => html`<${ModelSelect} field=${field} value=${now.model} onChange=${(model) => story.change({ model })} />`}<//>
        <${ShapeChoice} value=${now.aspect} onChange=${(aspect) => story.change({ aspect })} />
        <${Choice} label=${t("Seeds")} value=${now.seeds} options=${[["same", t("the same for all")], ["count", t("counting up")]]} onChange=${(seeds) => story.change({ seeds })} />
        <${Field} label=${t("First seed")}>${(field) => html`<input type="number" min="0" ...${field} value=${now.seed} onInput=${(event) => story.change({ seed: Number(event.target.value) || 0 })} />`}<//>
        ${filled > 0 && html`<${Cost} ...${costs} times=${asked.times} />`}
        <${Button} kind="primary draw" disabled=${busy || !filled || wrong} onClick=${draw}>${series ? t("Draw all as a new story") : t("Draw the story")}<//>
      </section>
      <section aria-label=${t("Frames")}>
        ${series && html`<div class="story-head"><h2>${series.title}</h2><span class="hint" role="status">${{ running: t("being drawn"), ready: t("complete"), incomplete: t("not complete") }[series.state]}</span><${Exports} series=${series} /></div>`}
        <${Frames} now=${now} names=${names} series=${series} onOpen=${setOpen} onAgain=${redraw} onAdd=${add} />
      </section>
    </div>
    ${open && html`<${Viewer} id=${open} onClose=${() => setOpen(null)} />`}`;
}
