// References: up to ten, numbered, in order, each with a role, a strength and, if wanted, only a part of it.
import { html, useState, Button, Drop, Icon } from "./ui.js";
import { dialogs, draft, useStore } from "./state.js";
import { t } from "./text.js";
import { addReference, complain } from "./jobs.js";
import { keep, keepAll, PickButton, Picture } from "./pictures.js";
import { PartEditor, StartEditor } from "./mask.js";

const ROLES = () => [
  ["", t("any role")],
  ["subject", t("subject")],
  ["style", t("style")],
  ["background", t("background")],
  ["lighting", t("lighting")],
  ["pose", t("pose")],
  ["palette", t("palette")],
  ["depth", t("depth")],
  ["edges", t("edges")],
];
const MOST = 10;
const MOVED = "application/x-licht-reference";

export function Tray() {
  const { references } = useStore(draft);
  const set = (next) => draft.change({ references: next });
  const move = (from, to) => {
    const next = [...references];
    next.splice(to, 0, next.splice(from, 1)[0]);
    set(next);
  };
  return html`<section class="tray" aria-label=${t("References")}>
    <header><h3>${t("References")}</h3>${references.length > 0 && html`<span class="hint">${references.length} / ${MOST}</span>`}</header>
    ${references.length > 0 && html`<ol>
      ${references.map((reference, index) => html`<${Reference} key=${reference.image} reference=${reference} index=${index} count=${references.length}
        move=${move} change=${(changes) => set(draft.get().references.map((each) => (each.image === reference.image ? { ...each, ...changes } : each)))}
        remove=${() => set(references.filter((each) => each !== reference))} />`)}
    </ol>`}
    ${references.length < MOST && html`<div class="tray-add">
      <${Drop} onFiles=${(files) => keepAll(files, addReference)} label=${t("Add reference pictures")}><${Icon} name="plus" /><span>${t("Drop, paste or choose pictures")}</span><//>
      <${PickButton} label=${t("Gallery")} title=${t("Choose a reference")} onPick=${addReference} />
    </div>`}
  </section>`;
}

function Reference({ reference, index, count, move, change, remove }) {
  const [cutting, setCutting] = useState(false);
  const name = `@image${index + 1}`;
  const whole = reference.whole ?? { image: reference.image, name: reference.name };
  const cut = async (blob, part) => {
    if (!blob) return change({ ...whole, whole: null, part: null });
    try {
      const kept = await keep(blob, `${whole.name || name} ${t("part")}`);
      change({ ...kept, whole, part });
    } catch (error) {
      complain(error);
    }
    return undefined;
  };
  const onDrop = (event) => {
    const from = event.dataTransfer.getData(MOVED);
    if (from) { event.stopPropagation(); move(Number(from), index); }
  };
  return html`<li class="reference" draggable=${true} onDragStart=${(event) => (dialogs.get().length ? event.preventDefault() : event.dataTransfer.setData(MOVED, String(index)))} onDrop=${onDrop}>
    <div class="thumb"><${Picture} image=${reference.image} alt=${t("Reference {n}: {name}", { n: index + 1, name: reference.name })} /><b>${index + 1}</b></div>
    <div class="knobs">
      <div class="knob-row"><code>${name}</code><span class="file" title=${reference.name}>${reference.name}</span></div>
      <div class="knob-row">
        <select aria-label=${t("Role of {name}", { name })} value=${reference.role || ""} onChange=${(event) => change({ role: event.target.value || null })}>
          ${ROLES().map(([value, text]) => html`<option value=${value} key=${value}>${text}</option>`)}
        </select>
        <input type="range" min="0" max="4" step="0.1" value=${reference.strength} aria-label=${t("Strength of {name}", { name })}
          onInput=${(event) => change({ strength: Number(event.target.value) })} />
        <output>${reference.strength.toFixed(1)}</output>
      </div>
    </div>
    <div class="moves">
      <${Button} icon="up" label=${t("Move {name} forward", { name })} disabled=${index === 0} onClick=${() => move(index, index - 1)} />
      <${Button} icon="down" label=${t("Move {name} back", { name })} disabled=${index === count - 1} onClick=${() => move(index, index + 1)} />
      <${Button} icon="brush" label=${t("Use only a part of {name}", { name })} onClick=${() => setCutting(true)} />
      <${Button} icon="close" label=${t("Remove {name}", { name })} onClick=${remove} />
    </div>
    ${cutting && html`<${PartEditor} entry=${{ ...reference, ...whole }} onDone=${cut} onClose=${() => setCutting(false)} />`}
  </li>`;
}

/** The picture that is being changed, if there is one. */
export function StartCard() {
  const { start } = useStore(draft);
  const [open, setOpen] = useState(false);
  if (!start) return null;
  const change = (changes) => draft.change({ start: { ...start, ...changes } });
  const extended = start.extend && Object.values(start.extend).some(Boolean);
  return html`<section class="start" aria-label=${t("The picture that changes")}>
    <div class="thumb"><${Picture} image=${start.image} alt=${t("The picture that changes")} />${start.mask && html`<img class="mask" src=${start.mask} alt="" />`}</div>
    <div class="knobs">
      <strong>${t("Changing this picture")}</strong>
      <span class="hint">${start.mask ? t("only where it is painted") : t("all of it")}${extended ? `, ${t("and beyond its borders")}` : ""}</span>
      <div class="knob-row">
        <${Button} icon="brush" onClick=${() => setOpen(true)}>${t("Mask and extend")}<//>
        <${Button} icon="close" label=${t("Stop changing this picture")} onClick=${() => draft.change({ start: null })} />
      </div>
      <div class="knob-row">
        <span class="hint">${t("Change")}</span>
        <input type="range" min="0.05" max="1" step="0.05" value=${start.strength} aria-label=${t("How much changes")} onInput=${(event) => change({ strength: Number(event.target.value) })} />
        <output>${Math.round(start.strength * 100)} %</output>
      </div>
    </div>
    ${open && html`<${StartEditor} start=${start} onDone=${change} onClose=${() => setOpen(false)} />`}
  </section>`;
}
