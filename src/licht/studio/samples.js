// Prompts that work with the built-in model, and structured ones to begin from.
/** [prompt, seed]; what was drawn with them stands in `samples.webp`, one below the other. */
export const SAMPLES = [
  ["a large shiny red sphere to the left of a small matte blue cube on a gray floor, light from the left", 14],
  ["a large matte green sphere to the left of a small matte yellow cube on a beige floor, light from the right", 2],
  ["a large matte orange cone to the left of a small shiny purple sphere on a teal floor, light from the left", 2],
  ["a large matte pink cylinder to the right of a small matte blue cube on a lilac floor, light from the left", 5],
];

/** [name, structured prompt] */
export const TEMPLATES = [
  ["Still life", { scene: "two things on a gray floor", subjects: [
    { type: "sphere", description: "large and shiny", position: "left", colors: ["red"] },
    { type: "cube", description: "small and matte", position: "right", colors: ["blue"] }],
    lighting: "light from the left", background: "a plain gray wall", camera: { angle: "eye level", distance: "medium" } }],
  ["Character", { scene: "a small character on a teal floor", subjects: [
    { type: "character", description: "round body, pointed hat", pose: "arms up", position: "middle", colors: ["purple", "yellow"] }],
    lighting: "warm light from the right", mood: "cheerful" }],
  ["Sign", { scene: "a sign on a beige floor", texts: [{ content: "LICHT", font: "sans", place: "sign", color: "black" }], lighting: "neutral light from the front" }],
  ["Product photo", { scene: "a product on a seamless background", subjects: [{ type: "product", description: "", position: "centre" }],
    style: "studio photograph", color_palette: ["#f4f1ea", "#c98b3a"], lighting: "large soft box from the left, gentle fill",
    camera: { angle: "slightly above", distance: "close", "lens-mm": 85, "f-number": "f/5.6", ISO: 100 } }],
];
