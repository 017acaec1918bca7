// Beneath the contents of a chapter: how many minutes it is to its exercises.
const told = [...document.querySelectorAll(".admonition li")]
  .map((item) => item.textContent.match(/It takes about (\d+) minutes/))
  .find(Boolean);
const [contents, article, end] = ["#pst-page-toc-nav", ".bd-article", "#exercises"].map((place) => document.querySelector(place));

if (told && contents && end) {
  const note = document.createElement("p");
  note.className = "time-left";
  contents.after(note);
  const show = () => {
    const start = article.getBoundingClientRect().top;
    const length = end.getBoundingClientRect().top - start;
    const read = Math.min(Math.max((innerHeight / 3 - start) / length, 0), 1);
    const minutes = Math.round((told[1] * (1 - read)) / 5) * 5;
    note.textContent = read < 1 ? `${minutes || "less than 5"} minutes to the exercises` : "the exercises";
  };
  addEventListener("scroll", show, { passive: true });
  show();
}
