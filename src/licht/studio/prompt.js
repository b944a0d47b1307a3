// The prompt box: text with @ completion for whatever can be named.
import { html, useEffect, useRef, useState, useLayoutEffect, useId } from "./ui.js";
import { t } from "./text.js";

const BEGUN = /(^|[\s(,;])@([\w-]*)$/;

/** `names` are [mention, what it is, thumbnail markup]. */
export function PromptBox({ value, onInput, names, label, placeholder, error, rows = 4, onEnter }) {
  const area = useRef(null);
  const [begun, setBegun] = useState(null);
  const [chosen, setChosen] = useState(0);
  const id = useId("prompt");
  const fitting = begun === null ? [] : names.filter(([name]) => name.toLowerCase().startsWith(begun.toLowerCase()));
  const open = fitting.length > 0;

  const fit = () => {
    const box = area.current;
    if (!box) return;
    // a scrollbar while measuring would make lines shorter, and more of them
    box.style.overflowY = "hidden";
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight + 2}px`;
    box.style.overflowY = box.scrollHeight > box.clientHeight + 2 ? "auto" : "hidden";
  };
  useLayoutEffect(fit, [value]);
  // words break elsewhere once the font is there, or the box has another width
  useEffect(() => {
    const width = new ResizeObserver((seen) => seen.forEach(({ contentRect }) => { if (contentRect.width !== known) { known = contentRect.width; fit(); } }));
    let known = null;
    width.observe(area.current);
    document.fonts.ready.then(fit);
    return () => width.disconnect();
  }, []);

  const look = (box) => {
    const match = BEGUN.exec(box.value.slice(0, box.selectionStart));
    setBegun(match ? match[2] : null);
    setChosen(0);
  };
  const take = (name) => {
    const box = area.current;
    const before = box.value.slice(0, box.selectionStart).replace(BEGUN, `$1@${name} `);
    const after = box.value.slice(box.selectionStart);
    setBegun(null);
    onInput(before + after);
    requestAnimationFrame(() => { box.focus(); box.setSelectionRange(before.length, before.length); });
  };
  const onKeyDown = (event) => {
    if (open && ["ArrowDown", "ArrowUp"].includes(event.key)) {
      event.preventDefault();
      setChosen((chosen + (event.key === "ArrowDown" ? 1 : fitting.length - 1)) % fitting.length);
    } else if (open && ["Enter", "Tab"].includes(event.key)) {
      event.preventDefault();
      take(fitting[chosen][0]);
    } else if (open && event.key === "Escape") {
      event.preventDefault();
      setBegun(null);
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && onEnter) {
      event.preventDefault();
      onEnter();
    }
  };
  return html`<div class=${`prompt ${error ? "wrong" : ""}`}>
    <label class="unseen" for=${id}>${label}</label>
    <textarea id=${id} ref=${area} rows=${rows} value=${value} placeholder=${placeholder} spellcheck=${true}
      aria-autocomplete="list" aria-controls=${open ? `${id}-names` : undefined} aria-activedescendant=${open ? `${id}-${chosen}` : undefined}
      aria-invalid=${error ? "true" : undefined} aria-describedby=${error ? `${id}-error` : undefined}
      onInput=${(event) => { onInput(event.target.value); look(event.target); }} onClick=${(event) => look(event.target)}
      onKeyDown=${onKeyDown} onBlur=${() => setBegun(null)}></textarea>
    ${open && html`<ul class="names" role="listbox" id=${`${id}-names`} aria-label=${t("References")}>
      ${fitting.map(([name, what, mark], index) => html`<li key=${name} id=${`${id}-${index}`} role="option" aria-selected=${String(index === chosen)}
        class=${index === chosen ? "on" : ""} onMouseDown=${(event) => { event.preventDefault(); take(name); }}>${mark}<b>@${name}</b><span>${what}</span></li>`)}
    </ul>`}
    ${error && html`<p class="error" id=${`${id}-error`}>${error}</p>`}
  </div>`;
}
