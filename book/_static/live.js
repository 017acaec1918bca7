// Live figures: a range input for each parameter, and a frame for each combination.
const slow = matchMedia("(prefers-reduced-motion: reduce)");

for (const figure of document.querySelectorAll(".live-figure")) {
  const data = figure.querySelector("script");
  if (!data) continue;
  const { pieces, frames } = JSON.parse(data.textContent);
  const picture = figure.querySelector(".live-picture");
  const note = figure.querySelector(".live-note");
  const play = figure.querySelector(".live-play");
  const controls = [...figure.querySelectorAll("label")].map((label) => ({
    name: label.querySelector("span").textContent,
    input: label.querySelector("input"),
    output: label.querySelector("output"),
    texts: JSON.parse(label.querySelector("input").dataset.texts),
  }));
  let timer = null;

  function show() {
    let index = 0;
    const values = controls.map(({ name, input, output, texts }) => {
      index = index * texts.length + Number(input.value);
      const text = texts[input.value];
      input.setAttribute("aria-valuetext", text);
      output.value = text;
      return `${name} = ${text}`;
    });
    picture.innerHTML = frames[index].map((i) => pieces[i]).join("");
    note.textContent = `At ${values.join(", ")}.`;
    picture.setAttribute("aria-label", `${figure.dataset.says} ${note.textContent}`);
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
      input.value = (Number(input.value) + 1) % texts.length;
      if (input.value !== "0" || !all) break;
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
