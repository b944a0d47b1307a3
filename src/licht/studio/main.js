// The shell: signing in, navigation, theme and language, and whether the service answers.
import { html, render, useEffect, useState, Icon, Button, Field, Notice, Toast } from "./ui.js";
import { ApiError, connection, get, session, signIn, signOut, takeKey } from "./api.js";
import { draft, settings, toast, useStore, view } from "./state.js";
import { said } from "./said.js";
import { t, useLanguage } from "./text.js";
import { resume } from "./jobs.js";
import { tidy } from "./live.js";
import { Create } from "./create.js";
import { Gallery } from "./gallery.js";
import { Series } from "./series.js";
import { Arena } from "./arena.js";
import { Verify } from "./verify.js";
import { Admin } from "./admin.js";
import { Compare } from "./compare.js";

const VIEWS = {
  create: [() => t("Create"), Create],
  gallery: [() => t("Gallery"), Gallery],
  series: [() => t("Series"), Series],
  arena: [() => t("Arena"), Arena],
  verify: [() => t("Verify"), Verify],
  admin: [() => t("Admin"), Admin],
};
const THEMES = ["auto", "light", "dark"];
const ABOUT_MS = 3000;
const KEY_REFUSED = new Set([401, 403, 422]);

function fromAddress() {
  const name = location.hash.replace(/^#\//, "");
  view.set(name in VIEWS ? name : "create");
}

function Navigation({ current, about }) {
  const names = Object.keys(VIEWS).filter((name) => name !== "admin" || about?.key.scopes.includes("admin"));
  return html`<nav class="rail" aria-label=${t("Views")}>
    <a class="mark" href="#/create" aria-label="Licht"><img src="/studio/icon.svg" alt="" width="36" height="36" /></a>
    ${names.map((name) => html`<a key=${name} href=${`#/${name}`} class=${name === current ? "on" : ""} aria-current=${name === current ? "page" : undefined}>
      <${Icon} name=${name} /><span>${VIEWS[name][0]()}</span></a>`)}
  </nav>`;
}

function Corner({ about }) {
  const { theme, language } = useStore(settings);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  const told = { auto: t("Theme: as the system"), light: t("Theme: light"), dark: t("Theme: dark") };
  const icons = { auto: "auto", light: "sun", dark: "moon" };
  return html`<div class="corner">
    ${about && html`<span class="weights" title=${t("The weights that draw")} role="status">${about.ready ? about.weights : t("{weights} is starting …", { weights: about.weights })}</span>`}
    ${about && about.key.credits !== null && html`<span class="weights">${t("{n} credits", { n: about.key.credits })}</span>`}
    <${Button} icon=${icons[theme]} label=${told[theme]} onClick=${() => settings.change({ theme: next })} />
    <button type="button" class="button quiet" lang=${language === "de" ? "en" : "de"} onClick=${() => settings.change({ language: language === "de" ? "en" : "de" })}>
      ${language === "de" ? "English" : "Deutsch"}</button>
    <${Button} icon="key" label=${t("Sign out")} onClick=${() => signOut()} />
  </div>`;
}

function SignIn() {
  const [key, setKey] = useState("");
  const { refused } = useStore(session);
  const wrong = key && !/^licht_\w{10}_\w{49}$/.test(key.trim()) ? t("A key begins with licht_ and has 66 characters.") : null;
  const enter = (event) => {
    event.preventDefault();
    if (key && !wrong) signIn(key.trim());
  };
  return html`<main class="signin"><form onSubmit=${enter}>
    <img src="/studio/icon.svg" alt="" width="56" height="56" />
    <h1>Licht</h1>
    <p>${t("Open the address that licht serve has printed: it holds your key. Or paste the key here.")}</p>
    ${refused && html`<${Notice} kind="error">${t("This service does not know that key, or it was revoked. Use another one.")}<//>`}
    <${Field} label=${t("API key")} error=${wrong}>${(field) => html`<input ...${field} type="password" autocomplete="off" spellcheck=${false} value=${key} onInput=${(event) => setKey(event.target.value)} />`}<//>
    <${Button} kind="primary" type="submit">${t("Sign in")}<//>
    <p class="hint">${t("The key stays in this tab and is forgotten when the tab closes.")}</p>
  </form></main>`;
}

function useAbout(key, up) {
  const [error, setError] = useState(null);
  useEffect(() => {
    if (!key || !up) return undefined;
    let timer;
    let over = false;
    const ask = async () => {
      try {
        const about = await get("/v1/about");
        if (over) return;
        setError(null);
        session.set((now) => ({ ...now, about }));
        if (!(draft.get().model in about.tiers)) draft.change({ model: Object.keys(about.tiers)[0] });
        if (!about.ready) timer = setTimeout(ask, ABOUT_MS);
      } catch (caught) {
        if (over || !(caught instanceof ApiError) || !caught.status) return;
        // nothing but the key was sent
        if (KEY_REFUSED.has(caught.status)) signOut(true);
        else setError(said(caught.message));
      }
    };
    ask();
    return () => { over = true; clearTimeout(timer); };
  }, [key, up]);
  return error;
}

function App() {
  useLanguage();
  const { key, about } = useStore(session);
  const { up } = useStore(connection);
  const { theme, language } = useStore(settings);
  const current = useStore(view);
  const error = useAbout(key, up);
  useEffect(() => {
    document.documentElement.lang = language;
    document.documentElement.dataset.theme = theme;
    document.title = `${VIEWS[current][0]()} · Licht`;
  }, [language, theme, current]);
  useEffect(() => {
    if (!key || !up) return;
    tidy();
    resume();
  }, [key, up]);
  useEffect(() => { if (up && toast.get()?.away) toast.set(null); }, [up]);
  if (!key) return html`<${SignIn} />`;
  const View = VIEWS[current][1];
  return html`<div class="shell">
    <a class="skip" href="#/${current}" onClick=${(event) => { event.preventDefault(); document.querySelector("main").focus(); }}>${t("To the content")}</a>
    <${Navigation} current=${current} about=${about} />
    <div class="page">
      <${Corner} about=${about} />
      ${!up && html`<${Notice} kind="warning">${t("Licht does not answer. What you typed is safe; this page tries again every second.")}<//>`}
      ${up && error && html`<${Notice} kind="error">${error}<//>`}
      <${Toast} />
      <main tabindex="-1" class=${`view ${current}`}><${View} /></main>
    </div>
    <${Compare} />
  </div>`;
}

takeKey();
fromAddress();
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#key=")) takeKey();
  fromAddress();
});
// a file that misses its place must not replace the page
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
render(html`<${App} />`, document.getElementById("app"));
