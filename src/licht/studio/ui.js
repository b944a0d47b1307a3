// Small pieces that every view uses. A view is a plain function that returns markup.
import { h, render, Fragment } from "./vendor/preact.js";
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import htm from "./vendor/htm.js";
import { dialogs, toast, useStore } from "./state.js";
import { t } from "./text.js";

export const html = htm.bind(h);
export { Fragment, render, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState };

const ICONS = {
  create: "M12 3v3M5.6 5.6l2.1 2.1M18.4 5.6l-2.1 2.1M4 20a8 8 0 0 1 16 0z",
  gallery: "M4 5h7v6H4zM13 5h7v9h-7zM4 13h7v6H4zM13 16h7v3h-7z",
  series: "M3 6h18v12H3zM9 6v12M15 6v12",
  arena: "M4 5h7v14H4zM13 5h7v14h-7zM7.5 9v0M16.5 15v0",
  verify: "M12 3l7 3v5c0 4.6-2.9 8.2-7 10-4.1-1.8-7-5.4-7-10V6zM9 12l2.2 2.2L15.5 10",
  admin: "M4 7h10M18 7h2M4 12h2M10 12h10M4 17h8M16 17h4M14 5v4M6 10v4M12 15v4",
  plus: "M12 5v14M5 12h14",
  close: "M6 6l12 12M18 6L6 18",
  heart: "M12 20s-7.5-4.6-7.5-10A4.3 4.3 0 0 1 12 7.2 4.3 4.3 0 0 1 19.5 10c0 5.4-7.5 10-7.5 10z",
  download: "M12 4v11M7.5 11l4.5 4.5 4.5-4.5M5 20h14",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l1 13h8l1-13",
  reference: "M4 5h11v11H4zM9 19.5h11v-11M8 12l2-2.5 3.5 4",
  edit: "M4 20l1-4L16.5 4.5l3 3L8 19zM14 7l3 3",
  dice: "M5 5h14v14H5zM9 9v0M15 15v0M12 12v0M15 9v0M9 15v0",
  lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  unlock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 6.8-1.2",
  compare: "M12 4v16M4 6h5v12H4M20 6h-5v12h5",
  reuse: "M4 12a8 8 0 0 1 13.7-5.6L20 8.5M20 4v4.5h-4.5M20 12a8 8 0 0 1-13.7 5.6L4 15.5M4 20v-4.5h4.5",
  braces: "M9 4c-3 0-2 5-2 6s-1 2-2.5 2C6 12 7 13 7 14s-1 6 2 6M15 4c3 0 2 5 2 6s1 2 2.5 2C18 12 17 13 17 14s1 6-2 6",
  up: "M6 15l6-6 6 6",
  down: "M6 9l6 6 6-6",
  left: "M15 6l-6 6 6 6",
  right: "M9 6l6 6-6 6",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM15.5 15.5L20 20",
  wand: "M5 19L15 9M17.5 3.5v4M15.5 5.5h4M19 12v3M17.5 13.5h3M9 4v3M7.5 5.5h3",
  moon: "M19 14.5A7.5 7.5 0 0 1 9.5 5a7.5 7.5 0 1 0 9.5 9.5z",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  auto: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  bolt: "M13 3L5 13.5h6L10 21l9-11h-6z",
  stop: "M7 7h10v10H7z",
  brush: "M14 5l5 5-7.5 6.5-4-4zM7 13c-2 .5-2 3-3.5 5.5C6 19.5 9 19 10.5 17",
  eraser: "M4 15l9-9 6 6-7 7H8zM9 10l6 6M12 19h8",
  key: "M8 11a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM11 12l9-9M16 7l3 3",
  check: "M5 12.5l4.5 4.5L19 7.5",
  more: "M6 12v0M12 12v0M18 12v0",
};

export function Icon({ name, filled }) {
  return html`<svg class=${"icon" + (filled ? " filled" : "")} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
    <path d=${ICONS[name]} />
  </svg>`;
}

/** A button. `label` is said aloud where `icon` stands alone. */
export function Button({ icon, label, children, kind = "quiet", filled, ...rest }) {
  const alone = icon && !children;
  const names = `button ${kind}${alone ? " alone" : ""}`;
  return html`<button type="button" ...${rest} class=${`${names} ${rest.class || ""}`} aria-label=${alone ? label : rest["aria-label"]} title=${alone ? label : rest.title}>
    ${icon && html`<${Icon} name=${icon} filled=${filled} />`}${children && html`<span>${children}</span>`}
  </button>`;
}

let ids = 0;
export function useId(prefix) {
  return useMemo(() => `${prefix}-${++ids}`, []);
}

/** A labelled control; `children` is a function that gets the id. An error stands beneath it, and is tied to it. */
export function Field({ label, hint, error, children, inline, class: extra = "" }) {
  const id = useId("field");
  return html`<div class=${`field ${inline ? "inline" : ""} ${error ? "wrong" : ""} ${extra}`}>
    <label for=${id}>${label}</label>
    ${children({ id, "aria-invalid": error ? "true" : undefined, "aria-describedby": error || hint ? `${id}-note` : undefined })}
    ${(error || hint) && html`<p class=${error ? "error" : "hint"} id=${`${id}-note`}>${error || hint}</p>`}
  </div>`;
}

export function Switch({ label, checked, onChange, icon, title }) {
  return html`<button type="button" class=${`chip ${checked ? "on" : ""}`} role="switch" aria-checked=${String(!!checked)} title=${title}
    onClick=${() => onChange(!checked)}>${icon && html`<${Icon} name=${icon} />`}<span>${label}</span></button>`;
}

/** One of several, as a row of radio buttons. `options` are [value, label, extra markup]. */
export function Choice({ label, value, options, onChange, class: extra = "" }) {
  const name = useId("choice");
  return html`<fieldset class=${`choice ${extra}`}>
    <legend>${label}</legend>
    <div class="options">
      ${options.map(([each, text, mark]) => html`<label class=${each === value ? "on" : ""} key=${each}>
        <input type="radio" name=${name} value=${each} checked=${each === value} onChange=${() => onChange(each)} />
        ${mark}<span>${text}</span>
      </label>`)}
    </div>
  </fieldset>`;
}

export function Range({ label, value, min, max, step, shown, onChange }) {
  return html`<${Field} label=${label} class="range">
    ${(field) => html`<div class="range-row">
      <input type="range" ...${field} min=${min} max=${max} step=${step} value=${value} aria-valuetext=${shown}
        onInput=${(event) => onChange(Number(event.target.value))} />
      <output for=${field.id}>${shown}</output>
    </div>`}
  <//>`;
}

/** A modal dialog: the browser keeps the focus inside, and Escape closes it. */
export function Dialog({ title, onClose, children, wide, actions, class: extra = "" }) {
  const box = useRef(null);
  const id = useId("dialog");
  useEffect(() => {
    const dialog = box.current;
    const before = document.activeElement;
    dialog.showModal();
    dialogs.set((now) => [...now, id]);
    return () => {
      dialogs.set((now) => now.filter((each) => each !== id));
      dialog.close();
      if (before && before.isConnected) before.focus();
    };
  }, []);
  const onBackdrop = (event) => event.target === box.current && onClose();
  return html`<dialog ref=${box} class=${`${wide ? "wide" : ""} ${extra}`} aria-labelledby=${id} onCancel=${(event) => { event.preventDefault(); onClose(); }} onMouseDown=${onBackdrop}>
    <div class="dialog">
      <header><h2 id=${id}>${title}</h2><${Button} icon="close" label=${t("Close")} onClick=${onClose} /></header>
      <div class="dialog-body">${children}</div>
      ${actions && html`<footer>${actions}</footer>`}
    </div>
    <${Toast} at=${id} />
  </dialog>`;
}

const SAID_MS = 8000;

/** What was said last, in the uppermost dialog: everything beneath it is out of reach. Errors stay until they are closed. */
export function Toast({ at = null }) {
  const said = useStore(toast);
  const open = useStore(dialogs);
  const shown = said && (open[open.length - 1] ?? null) === at;
  useEffect(() => {
    if (!shown || said.kind === "error") return undefined;
    const timer = setTimeout(() => toast.set(null), SAID_MS);
    return () => clearTimeout(timer);
  }, [shown, said]);
  if (!shown) return null;
  const undo = said.undo && html`<${Button} onClick=${() => { said.undo(); toast.set(null); }}>${t("Undo")}<//>`;
  return html`<div class="toast"><${Notice} kind=${said.kind} onClose=${() => toast.set(null)} action=${undo}>${said.text}<//></div>`;
}

/** A button that asks first. `onDo` may raise: then the question stays. */
export function AskFirst({ title, text, action, onDo, children, ...button }) {
  const [open, setOpen] = useState(false);
  const go = async () => { if (await onDo() !== false) setOpen(false); };
  const actions = html`<${Button} onClick=${() => setOpen(false)}>${t("Cancel")}<//><${Button} kind="danger" onClick=${go}>${action}<//>`;
  return html`<${Button} ...${button} onClick=${() => setOpen(true)}>${children}<//>
    ${open && html`<${Dialog} title=${title} onClose=${() => setOpen(false)} actions=${actions}><p>${text}</p><//>`}`;
}

/** A place to drop, paste or choose files. */
export function Drop({ onFiles, label, children, multiple = true, accept = "image/png,image/jpeg,image/webp", class: extra = "" }) {
  const [over, setOver] = useState(false);
  const id = useId("file");
  const take = (files) => files.length && onFiles([...files]);
  return html`<label for=${id} class=${`drop ${over ? "over" : ""} ${extra}`}
    onDragOver=${(event) => { event.preventDefault(); setOver(true); }}
    onDragLeave=${() => setOver(false)}
    onDrop=${(event) => { event.preventDefault(); setOver(false); take(event.dataTransfer.files); }}>
    <input id=${id} type="file" class="unseen" accept=${accept} multiple=${multiple} aria-label=${label}
      onChange=${(event) => { take(event.target.files); event.target.value = ""; }} />
    ${children}
  </label>`;
}

export function Notice({ kind = "info", children, onClose, action }) {
  return html`<div class=${`notice ${kind}`} role=${kind === "error" ? "alert" : "status"}>
    <div>${children}</div>
    ${action}${onClose && html`<${Button} icon="close" label=${t("Close")} onClick=${onClose} />`}
  </div>`;
}

export function Empty({ title, children }) {
  return html`<div class="empty"><h2>${title}</h2>${children}</div>`;
}
