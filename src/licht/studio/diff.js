// What differs between two texts: words where both are one line, else lines.
import { html } from "./ui.js";
import { t } from "./text.js";

const MOST_PARTS = 1500;

/** [kind, text] with kind "same", "gone" or "new": the longest common subsequence, by dynamic programming. */
export function difference(before, after) {
  const split = before.includes("\n") || after.includes("\n") ? /(?<=\n)/ : /(?<=\s)/;
  const [a, b] = [before.split(split), after.split(split)];
  if (a.length > MOST_PARTS || b.length > MOST_PARTS) return [["gone", before], ["new", after]];
  const common = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      common[i][j] = a[i] === b[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
    }
  }
  const parts = [];
  const add = (kind, text) => {
    const last = parts[parts.length - 1];
    if (last && last[0] === kind) last[1] += text;
    else parts.push([kind, text]);
  };
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { add("same", a[i]); i++; j++; }
    else if (i < a.length && (j === b.length || common[i + 1][j] >= common[i][j + 1])) add("gone", a[i++]);
    else add("new", b[j++]);
  }
  return parts;
}

export function Diff({ before, after }) {
  const parts = difference(before, after);
  if (parts.every(([kind]) => kind === "same")) return html`<p class="hint">${t("No difference.")}</p>`;
  return html`<pre class="diff">${parts.map(([kind, text], index) => (kind === "same" ? text : kind === "gone" ? html`<del key=${index}>${text}</del>` : html`<ins key=${index}>${text}</ins>`))}</pre>`;
}
