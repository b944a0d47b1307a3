// Painting a mask with mouse, finger or keys, and dragging the borders of a picture outwards.
import { html, useEffect, useMemo, useRef, useState, Button, Choice, Dialog, Field, Range } from "./ui.js";
import { pictureOf } from "./api.js";
import { complain } from "./jobs.js";
import { t } from "./text.js";

const SIDES = ["left", "top", "right", "bottom"];
const NONE = { left: 0, top: 0, right: 0, bottom: 0 };
const TOKEN = 16;
const PAINT = "rgb(255, 176, 32)";
const MOST_UNDONE = 20;

function load(source) {
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => failed(new Error(t("The picture cannot be shown.")));
    image.src = source;
  });
}

/** The picture and a canvas of its true size above it. `mask` is a data URI to begin with. */
function useCanvas(entry, mask) {
  const [image, setImage] = useState(null);
  const canvas = useRef(null);
  useEffect(() => { pictureOf(entry.image).then(load).then(setImage).catch(complain); }, [entry.image]);
  useEffect(() => {
    if (!image || !canvas.current || !mask) return;
    load(mask).then((drawn) => {
      const context = canvas.current.getContext("2d");
      context.drawImage(drawn, 0, 0);
      const pixels = context.getImageData(0, 0, canvas.current.width, canvas.current.height);
      for (let i = 0; i < pixels.data.length; i += 4) {
        const on = pixels.data[i] > 127;
        pixels.data.set(on ? [255, 176, 32, 255] : [0, 0, 0, 0], i);
      }
      context.putImageData(pixels, 0, 0);
    }).catch(complain);
  }, [image]);
  return [image, canvas];
}

/** The painted pixels as a black and white PNG, or null where nothing is painted. */
function painted(canvas) {
  const context = canvas.getContext("2d");
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  let any = false;
  for (let i = 0; i < pixels.data.length; i += 4) {
    const on = pixels.data[i + 3] > 127;
    any ||= on;
    pixels.data.set(on ? [255, 255, 255, 255] : [0, 0, 0, 255], i);
  }
  if (!any) return null;
  const copy = document.createElement("canvas");
  copy.width = canvas.width;
  copy.height = canvas.height;
  copy.getContext("2d").putImageData(pixels, 0, 0);
  return copy.toDataURL("image/png");
}

function Painter({ image, canvas, size, brush, erasing, margins, onMargins, onStroke, scale }) {
  const at = useRef(null);
  const [cursor, setCursor] = useState({ x: size.width / 2, y: size.height / 2 });
  const stroke = (from, to, erase) => {
    const context = canvas.current.getContext("2d");
    context.globalCompositeOperation = erase ? "destination-out" : "source-over";
    context.strokeStyle = PAINT;
    context.lineWidth = brush;
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x + 0.01, to.y);
    context.stroke();
  };
  const place = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * size.width, y: ((event.clientY - box.top) / box.height) * size.height };
  };
  const press = (event) => {
    event.currentTarget.setPointerCapture(event.pointerId);
    onStroke();
    at.current = place(event);
    stroke(at.current, at.current, erasing);
  };
  const drag = (event) => {
    const now = place(event);
    setCursor(now);
    if (at.current) { stroke(at.current, now, erasing); at.current = now; }
  };
  const keys = (event) => {
    const step = brush / 2;
    const ways = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key in ways) {
      event.preventDefault();
      const [x, y] = ways[event.key];
      const next = { x: Math.min(size.width, Math.max(0, cursor.x + x)), y: Math.min(size.height, Math.max(0, cursor.y + y)) };
      if (event.shiftKey) { onStroke(); stroke(cursor, next, erasing); }
      setCursor(next);
    } else if (event.key === " ") {
      event.preventDefault();
      onStroke();
      stroke(cursor, cursor, erasing);
    }
  };
  const total = { width: size.width + margins.left + margins.right, height: size.height + margins.top + margins.bottom };
  const share = (px, whole) => `${(px / whole) * 100}%`;
  return html`<div class="painter" style=${{ aspectRatio: `${total.width} / ${total.height}`, maxWidth: `min(${total.width * scale}px, 100% - 56px, calc(max(240px, 100dvh - 440px) * ${total.width / total.height}))` }}>
    <div class="painter-inner" style=${{ left: share(margins.left, total.width), top: share(margins.top, total.height), width: share(size.width, total.width), height: share(size.height, total.height) }}>
      <img src=${image.src} alt="" />
      <canvas ref=${canvas} width=${size.width} height=${size.height} tabindex="0" role="img"
        aria-label=${t("Mask. Arrow keys move the brush, space paints a dot, shift with arrows paints a line.")}
        onPointerDown=${press} onPointerMove=${drag} onPointerUp=${() => { at.current = null; }} onPointerCancel=${() => { at.current = null; }} onKeyDown=${keys}></canvas>
      <span class="brush" style=${{ left: share(cursor.x, size.width), top: share(cursor.y, size.height), width: share(brush, size.width) }}></span>
    </div>
    ${onMargins && SIDES.map((side) => html`<${Border} key=${side} side=${side} total=${total} margins=${margins} onMargins=${onMargins} />`)}
  </div>`;
}

/** A border that can be dragged outwards. The number fields do the same for keys. */
function Border({ side, total, margins, onMargins }) {
  const from = useRef(null);
  const across = side === "left" || side === "right";
  const outwards = side === "left" || side === "top" ? -1 : 1;
  const start = (event) => {
    event.currentTarget.setPointerCapture(event.pointerId);
    const box = event.currentTarget.parentElement.getBoundingClientRect();
    from.current = { at: across ? event.clientX : event.clientY, before: margins[side], perPixel: across ? total.width / box.width : total.height / box.height };
  };
  const drag = (event) => {
    if (!from.current) return;
    const moved = ((across ? event.clientX : event.clientY) - from.current.at) * outwards * from.current.perPixel;
    onMargins({ ...margins, [side]: Math.max(0, Math.round((from.current.before + moved) / TOKEN) * TOKEN) });
  };
  return html`<span class=${`border ${side}`} aria-hidden="true" onPointerDown=${start} onPointerMove=${drag} onPointerUp=${() => { from.current = null; }}></span>`;
}

function Tools({ brush, setBrush, erasing, setErasing, onClear, onAll, onUndo, strokes, largest }) {
  return html`<div class="tools">
    <${Choice} label=${t("Tool")} value=${erasing ? "erase" : "paint"} options=${[["paint", t("Paint")], ["erase", t("Erase")]]} onChange=${(value) => setErasing(value === "erase")} />
    <${Range} label=${t("Brush")} min=${4} max=${largest} step=${1} value=${brush} shown=${`${brush} px`} onChange=${setBrush} />
    <${Button} disabled=${!strokes} onClick=${onUndo}>${t("Undo")}<//>
    <${Button} onClick=${onClear}>${t("Clear")}<//>
    <${Button} onClick=${onAll}>${t("Paint all")}<//>
  </div>`;
}

function usePaint(entry, mask) {
  const [image, canvas] = useCanvas(entry, mask);
  const size = useMemo(() => ({ width: entry.width || image?.naturalWidth || 1, height: entry.height || image?.naturalHeight || 1 }), [entry, image]);
  const longest = Math.max(size.width, size.height);
  const [brush, setBrush] = useState(null);
  const [erasing, setErasing] = useState(false);
  const before = useRef([]);
  const [strokes, setStrokes] = useState(0);
  const pixels = () => canvas.current.getContext("2d");
  const remember = () => {
    before.current = [...before.current, pixels().getImageData(0, 0, size.width, size.height)].slice(-MOST_UNDONE);
    setStrokes(before.current.length);
  };
  const undo = () => {
    const last = before.current.pop();
    if (last) pixels().putImageData(last, 0, 0);
    setStrokes(before.current.length);
  };
  const fill = (color) => {
    remember();
    const context = canvas.current.getContext("2d");
    context.globalCompositeOperation = "source-over";
    context.clearRect(0, 0, size.width, size.height);
    if (color) { context.fillStyle = color; context.fillRect(0, 0, size.width, size.height); }
  };
  const tools = {
    brush: brush ?? Math.max(8, Math.round(longest / 8)),
    setBrush,
    erasing,
    setErasing,
    onClear: () => fill(null),
    onAll: () => fill(PAINT),
    onUndo: undo,
    strokes,
    largest: Math.max(16, Math.round(longest / 2)),
  };
  // small pictures are shown larger, so that a finger can paint on them
  return { image, canvas, size, tools, remember, scale: Math.max(1, 560 / longest) };
}

/** Mask and margins of the picture that changes. */
export function StartEditor({ start, onDone, onClose }) {
  const { image, canvas, size, tools, remember, scale } = usePaint(start, start.mask);
  const [margins, setMargins] = useState({ ...NONE, ...start.extend });
  const done = () => {
    onDone({ mask: painted(canvas.current), extend: margins });
    onClose();
  };
  const total = `${size.width + margins.left + margins.right} × ${size.height + margins.top + margins.bottom} px`;
  const actions = html`<${Button} onClick=${onClose}>${t("Cancel")}<//><${Button} kind="primary" onClick=${done}>${t("Use it")}<//>`;
  return html`<${Dialog} title=${t("Mask and extend")} onClose=${onClose} actions=${actions} wide>
    <p class="hint">${t("Paint what is to be drawn anew; the rest stays exactly as it is. Drag a border outwards to extend the picture.")}</p>
    <${Tools} ...${tools} />
    ${image && html`<${Painter} image=${image} canvas=${canvas} size=${size} brush=${tools.brush} erasing=${tools.erasing} margins=${margins} onMargins=${setMargins} onStroke=${remember} scale=${scale} />`}
    <div class="margins">
      ${SIDES.map((side) => html`<${Field} key=${side} label=${{ left: t("left"), top: t("top"), right: t("right"), bottom: t("bottom") }[side]}>
        ${(field) => html`<input type="number" ...${field} min="0" max="2048" step=${TOKEN} value=${margins[side]} onInput=${(event) => setMargins({ ...margins, [side]: Math.max(0, Math.round(Number(event.target.value) || 0)) })} />`}<//>`)}
      <span class="hint">${total}</span>
    </div>
  <//>`;
}

/** Only a part of a reference: what is not painted becomes even gray. `onDone` gets nothing where nothing is painted: all of it counts. */
export function PartEditor({ entry, onDone, onClose }) {
  const { image, canvas, size, tools, remember, scale } = usePaint({ ...entry, width: null, height: null }, entry.part);
  const done = () => {
    onClose();
    const part = painted(canvas.current);
    if (!part) return onDone(null, null);
    const copy = document.createElement("canvas");
    copy.width = size.width;
    copy.height = size.height;
    const context = copy.getContext("2d");
    context.drawImage(canvas.current, 0, 0);
    context.globalCompositeOperation = "source-in";
    context.drawImage(image, 0, 0, size.width, size.height);
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "rgb(128, 128, 128)";
    context.fillRect(0, 0, size.width, size.height);
    return copy.toBlob((blob) => onDone(blob, part), "image/png");
  };
  const actions = html`<${Button} onClick=${onClose}>${t("Cancel")}<//><${Button} kind="primary" onClick=${done}>${t("Use this part")}<//>`;
  return html`<${Dialog} title=${t("Use only a part")} onClose=${onClose} actions=${actions} wide>
    <p class="hint">${t("Paint the part that counts; the rest of the reference becomes gray. With nothing painted all of it counts.")}</p>
    <${Tools} ...${tools} />
    ${image && html`<${Painter} image=${image} canvas=${canvas} size=${size} brush=${tools.brush} erasing=${tools.erasing} margins=${NONE} onStroke=${remember} scale=${scale} />`}
  <//>`;
}
