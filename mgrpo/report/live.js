// Follows the run: `drawnState` is the state of its files that this page shows.
{
  const FOLLOW = "mgrpo-follow";
  const words = make("span", "", "live");
  const box = make("input", "");
  box.type = "checkbox";
  box.checked = sessionStorage.getItem(FOLLOW) !== "no";
  const follow = make("label", "", box, " follow the run");
  const show = make("button", "", "Show the new steps");
  const bar = make("div", "live", words, follow);
  bar.setAttribute("role", "status");
  document.body.append(bar);

  let newest = drawnState;
  function update() {
    if (newest === drawnState) return show.remove();
    if (box.checked) return location.reload();
    bar.append(show);
  }
  show.addEventListener("click", () => location.reload());
  box.addEventListener("change", () => {
    sessionStorage.setItem(FOLLOW, box.checked ? "yes" : "no");
    update();
  });

  const events = new EventSource("events");
  events.addEventListener("open", () => { words.textContent = "live"; bar.classList.remove("lost"); });
  events.addEventListener("error", () => {
    words.textContent = "not connected: is mgrpo report --live still there?";
    bar.classList.add("lost");
  });
  events.addEventListener("message", (event) => { newest = event.data; update(); });
}
