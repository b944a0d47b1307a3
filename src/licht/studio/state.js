// Stores: a value, and who wants to hear when it changes. What a person has typed also lies in the tab's own storage.
import { useEffect, useState } from "./vendor/hooks.js";

export function store(initial) {
  let value = initial;
  const listeners = new Set();
  return {
    get: () => value,
    set(next) {
      value = typeof next === "function" ? next(value) : next;
      for (const listener of [...listeners]) listener(value);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

export function useStore(from) {
  const [value, setValue] = useState(from.get());
  useEffect(() => {
    setValue(from.get());
    return from.subscribe(setValue);
  }, [from]);
  return value;
}

/** A store that outlives a reload of its tab. What is stored and what is new are merged, so a new field has its value. */
export function kept(name, initial, area = sessionStorage) {
  const key = `licht.${name}`;
  let stored = {};
  try {
    stored = JSON.parse(area.getItem(key)) || {};
  } catch { /* written by something else: begin anew */ }
  const made = store({ ...initial, ...stored });
  made.subscribe((value) => {
    try {
      area.setItem(key, JSON.stringify(value));
    } catch { /* full: the value lives on in memory */ }
  });
  made.change = (changes) => made.set((now) => ({ ...now, ...changes }));
  made.reset = () => made.set({ ...initial });
  return made;
}

export const settings = kept("settings", { theme: "auto", language: navigator.language.startsWith("de") ? "de" : "en" }, localStorage);

export const EMPTY_DRAFT = {
  mode: "prose",
  prompt: "",
  json: "",
  references: [],
  start: null,
  model: "flux-2-pro",
  aspect: "1:1",
  megapixels: null,
  seed: null,
  seedLocked: false,
  num: 1,
  steps: null,
  guidance: null,
  finish: "none",
  format: "png",
  upsample: false,
  live: false,
};
export const draft = kept("draft", EMPTY_DRAFT);

export const EMPTY_STORY = {
  id: null,
  title: "",
  style: "",
  model: "flux-2-pro",
  aspect: "1:1",
  seed: 7,
  seeds: "same",
  characters: [],
  frames: [{ prompt: "" }, { prompt: "" }, { prompt: "" }],
};
export const story = kept("story", EMPTY_STORY);

export const duel = kept("duel", {
  prompt: "",
  battle: null,
  left: { model: "flux-2-flex", steps: 6, guidance: null },
  right: { model: "flux-2-flex", steps: 20, guidance: null },
});

/** Jobs of this visit, newest first: what the service says of each, and its latest preview. */
export const jobs = store([]);
/** Ids of live mode's jobs that still have to be removed, should the page be reloaded before it could. */
export const unfinished = kept("sketches", { ids: [] });
/** Ids of live mode's jobs. They are removed as soon as they are shown or given up, so that no list has room for them. */
export const sketches = store(new Set(unfinished.get().ids));
/** What of a list is there to stay. */
export const lasting = (listed, passing = sketches.get()) => listed.filter(({ id }) => !passing.has(id));
/** Two pictures to hold against each other: [first or null, second or null]. */
export const pair = store([]);
export const view = store("create");
/** What was said last: kind, text, and `undo` where something can be brought back. */
export const toast = store(null);
/** Names of the dialogs that are open, the uppermost last: it alone shows what is said. */
export const dialogs = store([]);
/** How many pictures this visit has deleted: whoever lists pictures looks again when it changes. */
export const deleted = store(0);

/** Put something in the place of what a person has typed, and offer to take that back. */
export function replace(from, changes, text) {
  const before = from.get();
  from.change(changes);
  toast.set({ kind: "info", text, undo: () => from.set(before) });
}
