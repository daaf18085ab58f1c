// The browser of completions. Their text is written with textContent only: it is never parsed
// as HTML.
const WORDS = {
  right: ["✓", "right"], wrong: ["✕", "wrong"], unparsable: ["?", "no readable answer"],
  failed: ["!", "check failed"], unscored: ["·", "not scored"],
};
const FILTERS = [
  ["all", "All"], ["wrong_to_right", "Wrong → right"], ["right_to_wrong", "Right → wrong"],
  ["right_to_right", "Right → right"], ["wrong_to_wrong", "Wrong → wrong"],
  ["right", "Right"], ["wrong", "Wrong"], ["unparsable", "No readable answer"],
  ["cut", "Cut off"], ["failed", "Check failed"],
];

function make(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content.map((item) => (item instanceof Node ? item : String(item))));
  return element;
}

// A step of training, or an evaluation: the policy before that step.
const nameOf = (step) => (step.heldout ? `Held-out problems, after ${step.step} steps` : `Step ${step.step}`);
const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(2);
const isGraded = (node) => node.grade !== "failed" && node.grade !== "unscored";

// The filters that a completion answers to. Transitions belong to corrections, plain grades
// to runs that have none.
function kinds(node, byId, hasLayers) {
  const found = ["all"];
  const parent = byId.get(node.parent);
  const side = (one) => (one.grade === "right" ? "right" : "wrong");
  if (parent && isGraded(parent) && isGraded(node)) found.push(`${side(parent)}_to_${side(node)}`);
  if (!hasLayers && isGraded(node)) found.push(side(node));
  if (node.grade === "unparsable" || node.grade === "failed") found.push(node.grade);
  if (node.finish === "length") found.push("cut");
  return found;
}

function badge(node) {
  const [glyph, word] = WORDS[node.grade];
  return make("span", `badge ${node.grade}`, `${glyph} ${word}`);
}

function nodeRow(node) {
  const summary = make("summary", "", badge(node));
  if (node.answer) summary.append(make("span", "answer", node.answer));
  if (node.reward !== undefined) summary.append(make("span", "soft", `reward ${node.reward.toFixed(2)}`));
  if (node.advantage !== undefined) summary.append(make("span", "soft", `advantage ${signed(node.advantage)}`));
  summary.append(make("span", "soft", `${node.tokens} tokens`));
  if (node.finish === "length") summary.append(make("span", "flag", "cut off at the limit"));
  if (node.finish === "aborted") summary.append(make("span", "flag", "aborted"));
  if (node.still) summary.append(make("span", "flag", `no gradient: ${node.still}`));
  else if (node.selected === true) summary.append(make("span", "soft", "trained"));
  if (node.selected === false) summary.append(make("span", "flag", `not trained${node.why ? `: ${node.why}` : ""}`));

  const facts = make("dl", "");
  const fact = (term, value) => facts.append(make("div", "", make("dt", "", `${term} `), make("dd", "", value)));
  if (node.parts) fact("Reward parts", Object.entries(node.parts).map(([name, value]) => `${name} ${value}`).join(" · "));
  if (node.detail) fact("Check", node.detail);
  if (node.feedback) fact("Feedback of the check", node.feedback);
  if (node.fed_back) fact("Read of the attempt's check", node.fed_back);
  fact("Policy version", node.version);
  fact("Id", node.id);
  return make("details", "node", summary, make("div", "body", make("pre", "", node.text || "(empty)"), facts));
}

// One level of the tree. Corrections that open with the same phrase share its line.
function branch(nodes, childrenOf, isShown, className) {
  const list = make("ul", className);
  let phrase;
  for (const node of nodes) {
    const children = childrenOf.get(node.id) || [];
    const below = branch(children, childrenOf, isShown, "");
    if (!isShown(node) && !below.childElementCount) continue;
    if (node.guidance && node.guidance !== phrase) {
      list.append(make("li", "guidance", `“${node.guidance}”`));
      phrase = node.guidance;
    }
    const item = make("li", "", nodeRow(node));
    if (below.childElementCount) item.append(below);
    list.append(item);
  }
  return list;
}

function problemCard(problem, isShown) {
  const ids = new Set(problem.nodes.map((node) => node.id));
  const childrenOf = new Map();
  const roots = problem.nodes.filter((node) => !ids.has(node.parent));
  for (const node of problem.nodes) {
    if (!ids.has(node.parent)) continue;
    if (!childrenOf.has(node.parent)) childrenOf.set(node.parent, []);
    childrenOf.get(node.parent).push(node);
  }
  const tree = branch(roots, childrenOf, isShown, "tree");
  if (!tree.childElementCount) return null;
  const glyphs = make("span", "glyphs");
  for (const node of roots) {
    const [glyph, word] = WORDS[node.grade];
    const mark = make("span", `glyph ${node.grade}`, glyph);
    mark.title = `attempt: ${word}`;
    glyphs.append(mark);
  }
  const domain = problem.domain === "default" ? "" : problem.domain;
  const summary = make("summary", "", make("h3", "", problem.id), make("span", "domain-name", domain), glyphs);
  return make("details", "problem", summary,
    make("div", "inside", make("p", "question", problem.question),
      ...(problem.reference ? [make("p", "", `Reference answer: ${problem.reference}`)] : []), tree));
}

function browse(steps) {
  const cards = document.getElementById("completions-cards");
  const status = document.getElementById("completions-status");
  const controls = document.getElementById("completions-controls");
  const hasLayers = steps.some((s) => s.problems.some((p) => p.nodes.some((node) => node.layer > 1)));
  for (const step of steps) {
    step.counts = {};
    for (const problem of step.problems) {
      const byId = new Map(problem.nodes.map((node) => [node.id, node]));
      for (const node of problem.nodes) {
        node.kinds = kinds(node, byId, hasLayers);
        for (const kind of node.kinds) step.counts[kind] = (step.counts[kind] || 0) + 1;
      }
    }
  }
  const state = { index: steps.length - 1, filter: "all" };

  const select = make("select", "", ...steps.map((step, index) => {
    const option = make("option", "", nameOf(step));
    option.value = index;
    return option;
  }));
  select.setAttribute("aria-label", "Step");
  const turn = (label, text, by) => {
    const button = make("button", "", text);
    button.type = "button";
    button.setAttribute("aria-label", label);
    button.addEventListener("click", () => { state.index += by; draw(); });
    return button;
  };
  const earlier = turn("Earlier step", "‹", -1);
  const later = turn("Later step", "›", 1);
  select.addEventListener("change", () => { state.index = Number(select.value); draw(); });
  const stepGroup = make("div", "group", earlier, select, later);

  const filterGroup = make("div", "group");
  filterGroup.setAttribute("role", "group");
  filterGroup.setAttribute("aria-label", "Show only");
  const buttons = FILTERS.filter(([kind]) => steps.some((step) => step.counts[kind])).map(([kind, label]) => {
    const count = make("span", "count", "");
    const button = make("button", "", `${label} `, count);
    button.type = "button";
    button.addEventListener("click", () => { state.filter = kind; draw(); });
    filterGroup.append(button);
    return { kind, button, count };
  });
  controls.append(stepGroup, filterGroup);

  function draw() {
    const step = steps[state.index];
    select.value = state.index;
    earlier.disabled = state.index === 0;
    later.disabled = state.index === steps.length - 1;
    for (const { kind, button, count } of buttons) {
      button.setAttribute("aria-pressed", String(kind === state.filter));
      count.textContent = step.counts[kind] || 0;
    }
    const shown = step.problems.map((problem) =>
      problemCard(problem, (node) => node.kinds.includes(state.filter))).filter(Boolean);
    if (shown.length) shown[0].open = true;
    if (state.filter !== "all") shown.forEach((card) => { card.open = true; });
    cards.replaceChildren(...shown);
    const number = step.counts[state.filter] || 0;
    const what = `${number} ${number === 1 ? "completion" : "completions"}`;
    status.textContent = number
      ? `${nameOf(step)}: ${what} of ${shown.length} ${shown.length === 1 ? "problem" : "problems"}. Open a line to read the text.`
      : `${nameOf(step)} has none of these.`;
  }
  draw();
}

const completionsData = document.getElementById("completions-data");
if (completionsData) browse(JSON.parse(completionsData.textContent));
