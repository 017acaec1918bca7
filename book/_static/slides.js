// A deck begins when its formulas are set and each slide has been made to fit.
const room = { width: 1152, height: 648 };

function fit(section) {
  const inner = section.querySelector(".fit");
  inner.style.zoom = 1;
  const parts = [...inner.querySelectorAll("mjx-container, pre, table, svg")];
  const width = Math.max(room.width, ...parts.map((part) => part.scrollWidth));
  const scale = Math.min(1, room.width / width, room.height / inner.scrollHeight);
  inner.style.zoom = scale;
}

addEventListener("load", async () => {
  await MathJax.startup.promise;
  await window.formulasFit;
  for (const section of document.querySelectorAll(".slides > section")) {
    fit(section);
    // What a figure asks, and its answer, come and go.
    for (const kind of ["click", "input"]) section.addEventListener(kind, () => fit(section));
  }
  document.documentElement.classList.remove("measured");
  await Reveal.initialize({
    width: 1280, height: 720, margin: 0, hash: true, slideNumber: true, center: false,
    plugins: [RevealNotes],
  });
  document.documentElement.classList.add("ready");
});
