// Compose on one side, pictures on the other.
import { html, useEffect, useMemo, useRef, useState, Button, Switch } from "./ui.js";
import { ApiError, session } from "./api.js";
import { dialogs, draft, useStore } from "./state.js";
import { said } from "./said.js";
import { t } from "./text.js";
import { addReference, bodyOf, complain, FINAL_STEPS, PREVIEW_STEPS, promptOf, submit } from "./jobs.js";
import { keepAll, Picture } from "./pictures.js";
import { PromptBox } from "./prompt.js";
import { Controls } from "./controls.js";
import { StartCard, Tray } from "./tray.js";
import { StructuredEditor, useStructured } from "./structured.js";
import { Stage } from "./stage.js";
import { sketchOf, useLive } from "./live.js";
import { Cost, usePlan, usePlans } from "./plan.js";

/** Below this width the pictures come after the form: see views.css. */
const NARROW_PX = 820;

function Composer() {
  const now = useStore(draft);
  const { about } = useStore(session);
  const [busy, setBusy] = useState(false);
  const [structuring, setStructuring] = useState(false);
  const structured = useStructured();
  const token = useRef(null);
  const body = useMemo(() => bodyOf(now), [now, about]);
  const { plan, error } = usePlan(body);
  const live = useLive(now);
  const [sketch] = usePlans(now.live ? [sketchOf(body)] : []).plans;
  const errors = error && error.field ? { [error.field.split(".")[0]]: said(error.message) } : {};

  const go = async (changes = {}) => {
    if (busy) return;
    setBusy(true);
    // the same click sent twice, because the answer was lost, must not draw twice
    token.current ??= crypto.randomUUID();
    try {
      const [first] = await submit({ ...body, ...changes }, token.current);
      token.current = null;
      if (innerWidth <= NARROW_PX) document.querySelector(".stage").scrollIntoView({ behavior: "smooth" });
      if (changes.steps === PREVIEW_STEPS || now.seedLocked) draft.change({ seed: first.seed, seedLocked: true });
      else draft.change({ seed: null });
    } catch (caught) {
      if (!(caught instanceof ApiError) || caught.status) token.current = null;
      complain(caught);
    } finally {
      setBusy(false);
    }
  };
  useEffect(() => { token.current = null; }, [body]);
  useEffect(() => {
    const paste = (event) => {
      const files = [...event.clipboardData.files].filter((file) => file.type.startsWith("image/"));
      if (files.length && !dialogs.get().length) { event.preventDefault(); keepAll(files, addReference); }
    };
    // beside the tray it is meant for the tray too
    const drop = (event) => {
      if (!event.defaultPrevented && event.dataTransfer.files.length && !dialogs.get().length) { event.preventDefault(); keepAll([...event.dataTransfer.files], addReference); }
    };
    document.addEventListener("paste", paste);
    document.addEventListener("drop", drop);
    return () => {
      document.removeEventListener("paste", paste);
      document.removeEventListener("drop", drop);
    };
  }, []);
  const names = now.references.map((reference, index) => [`image${index + 1}`, reference.role || reference.name, html`<${Picture} image=${reference.image} alt="" />`]);
  const prose = now.mode === "prose";
  const empty = !promptOf(now).trim();
  return html`<section class="composer card" aria-label=${t("Compose")}>
    ${prose
      ? html`<${PromptBox} value=${now.prompt} onInput=${(prompt) => draft.change({ prompt })} names=${names} label=${t("Prompt")} rows=${4}
          placeholder=${now.start ? t("What should change?") : t("What would you like to see?")} error=${errors.prompt} onEnter=${() => go()} />`
      : html`<${StructuredCard} structured=${structured} onOpen=${() => setStructuring(true)} error=${error && error.field ? `${error.field}: ${said(error.message)}` : null} />`}
    <div class="chips">
      <${Switch} icon="braces" label=${t("Structured")} checked=${!prose} onChange=${(on) => { structured.toggle(on); if (on) setStructuring(true); }} />
      <${Switch} icon="bolt" label=${t("Live")} title=${t("Draws with the four-step model as you type")} checked=${now.live} onChange=${(on) => draft.change({ live: on })} />
      ${about?.upsampling && html`<${Switch} icon="wand" label=${t("Enrich")} title=${t("The prompt is made richer before it is drawn")} checked=${now.upsample} onChange=${(on) => draft.change({ upsample: on })} />`}
    </div>
    ${now.live && sketch && html`<p class="hint">${t("Each sketch costs {n} credits, and is not kept.", { n: Number(sketch.cost.toFixed(2)) })}</p>`}
    <${StartCard} />
    <${Tray} />
    <${Controls} errors=${errors} />
    <footer>
      ${!(errors.prompt && prose) && html`<${Cost} plans=${[plan]} error=${error} />`}
      ${now.model === "flux-2-flex" && html`<div class="flex-buttons">
        <${Button} kind="secondary" disabled=${busy || empty} onClick=${() => go({ steps: PREVIEW_STEPS })}>${t("Preview ({n} steps)", { n: PREVIEW_STEPS })}<//>
        <${Button} kind="secondary" disabled=${busy || empty} onClick=${() => go({ steps: FINAL_STEPS })}>${t("Final ({n} steps)", { n: FINAL_STEPS })}<//>
      </div>`}
      <${Button} kind="primary draw" disabled=${busy || empty} onClick=${() => go()}>${busy ? t("Sending …") : t("Draw")}<//>
    </footer>
    ${structuring && html`<${StructuredEditor} error=${error} onClose=${() => setStructuring(false)} />`}
    <div class="unseen" role="status">${live.state}</div>
  </section>`;
}

function StructuredCard({ structured, onOpen, error }) {
  return html`<button type="button" class="structured-card" onClick=${onOpen} aria-label=${t("Edit the structured prompt")}>
    <pre>${structured.summary || t("An empty structured prompt")}</pre>
    <span class="hint">${t("Click to edit as form and JSON")}</span>
  </button>${error && html`<p class="error">${error}</p>`}`;
}

export function Create() {
  return html`<h1 class="unseen">${t("Create")}</h1><${Composer} /><${Stage} />`;
}
