// Live figures: an input for each parameter, and a frame for each combination. Where the
// figure asks what will happen, a choice opens the controls, and the answer appears at
// the first frame where it can be seen.
const slow = matchMedia("(prefers-reduced-motion: reduce)");

for (const figure of document.querySelectorAll(".live-figure")) {
  const data = figure.querySelector("script");
  if (!data) continue;
  const { pieces, frames, answered } = JSON.parse(data.textContent);
  const picture = figure.querySelector(".live-picture");
  const note = figure.querySelector(".live-note");
  const play = figure.querySelector(".live-play");
  const controls = [...figure.querySelectorAll("label")].map((label) => ({
    name: label.querySelector("span").textContent,
    input: label.querySelector("input"),
    output: label.querySelector("output"),
    texts: JSON.parse(label.querySelector("input").dataset.texts),
  }));
  const on = (input) => input.type === "checkbox";
  const place = (input) => Number(on(input) ? input.checked : input.value);
  const question = figure.querySelector(".live-question");
  const skip = figure.querySelector(".live-skip");
  const said = figure.querySelector(".live-said");
  let timer = null;
  let seen = false;

  function show() {
    let index = 0;
    const values = controls.map(({ name, input, output, texts }) => {
      index = index * texts.length + place(input);
      const text = texts[place(input)];
      if (!on(input)) input.setAttribute("aria-valuetext", text);
      output.value = text;
      return `${name} = ${text}`;
    });
    picture.innerHTML = frames[index].map((i) => pieces[i]).join("");
    note.textContent = `At ${values.join(", ")}.`;
    picture.setAttribute("aria-label", `${figure.dataset.says} ${note.textContent}`);
    if (question && answered.includes(index)) answer();
  }

  // The states of a question: live-asks, then live-open, then neither.
  function open(words) {
    figure.classList.replace("live-asks", "live-open");
    said.textContent = words;
    skip.textContent = "Show the answer";
    if (seen) answer();
  }

  function answer() {
    seen = true;
    if (!figure.classList.contains("live-open")) return;
    figure.classList.remove("live-open");
    skip.hidden = true;
    said.textContent = said.textContent.replace(/ *Move the figure to see\./, "");
  }

  if (question) {
    const choices = [...question.querySelectorAll(".live-choice")];
    for (const choice of choices) {
      choice.addEventListener("click", () => {
        for (const one of choices) one.setAttribute("aria-pressed", one === choice);
        const words = `You said: ${choice.textContent}.`;
        if (figure.classList.contains("live-asks")) open(`${words} Move the figure to see.`);
        else said.textContent = words;
      });
    }
    skip.addEventListener("click", () => {
      if (figure.classList.contains("live-open")) answer();
      else open("Move the figure to see.");
    });
    skip.hidden = false;
    figure.classList.add("live-asks");
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }

  // Through the first parameter; through all combinations where they are few.
  const all = frames.length <= 20;
  const tour = all ? frames.length : controls[0].texts.length;

  function step() {
    for (const { input, texts } of controls) {
      const next = (place(input) + 1) % texts.length;
      if (on(input)) input.checked = next;
      else input.value = next;
      if (next || !all) break;
    }
    show();
  }

  play.addEventListener("click", () => {
    if (timer) return stop();
    timer = setInterval(step, slow.matches ? 1500 : Math.max(150, 4000 / tour));
    play.textContent = "Pause";
    step();
  });
  for (const { input } of controls) {
    input.addEventListener("input", () => { stop(); show(); });
  }
  figure.querySelector(".live-controls").hidden = false;
  figure.classList.add("live-moves");
}
