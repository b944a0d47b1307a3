// Two pictures on top of each other, with a slider between them.
import { html, useState, Button, Dialog } from "./ui.js";
import { pair, useStore } from "./state.js";
import { t } from "./text.js";
import { Picture, promptText } from "./pictures.js";

export function Slider({ first, second, names }) {
  const [at, setAt] = useState(50);
  const drag = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    if (event.buttons) setAt(Math.min(100, Math.max(0, ((event.clientX - box.left) / box.width) * 100)));
  };
  return html`<div class="slider" style=${{ aspectRatio: `${first.width} / ${first.height}` }} onPointerDown=${drag} onPointerMove=${drag}>
      <${Picture} image=${`job:${second.id}`} alt=${names[1]} draggable=${false} />
      <${Picture} image=${`job:${first.id}`} alt=${names[0]} draggable=${false} style=${{ clipPath: `inset(0 ${100 - at}% 0 0)` }} />
      <i class="line" style=${{ left: `${at}%` }}></i>
    </div>
    <input type="range" class="slider-range" min="0" max="100" value=${at} aria-label=${t("How much of the first picture is shown")} onInput=${(event) => setAt(Number(event.target.value))} />`;
}

export function Compare() {
  const chosen = useStore(pair);
  if (chosen.length === 0) return null;
  if (chosen.length === 1) {
    return html`<div class="held" role="status"><${Picture} image=${`job:${chosen[0].id}`} alt="" />
      <span>${t("Open another picture and choose Compare.")}</span><${Button} icon="close" label=${t("Do not compare")} onClick=${() => pair.set([])} /></div>`;
  }
  const names = chosen.map((picture) => `${picture.model}, ${t("seed {n}", { n: picture.seed })}`);
  const actions = html`<${Button} onClick=${() => pair.set([chosen[1], chosen[0]])}>${t("Swap")}<//>`;
  return html`<${Dialog} title=${t("Compare")} onClose=${() => pair.set([])} actions=${actions} wide class="compare">
    <${Slider} first=${chosen[0]} second=${chosen[1]} names=${names} />
    <div class="compare-names">${chosen.map((picture, index) => html`<div key=${index}><b>${names[index]}</b><p class="hint">${promptText(picture.prompt)}</p></div>`)}</div>
  <//>`;
}
