// What a pointer over a chart shows: the nearest point of each line. Places and words were made with the chart.
for (const figure of document.querySelectorAll(".chart")) {
  const { series } = JSON.parse(figure.querySelector("script").textContent);
  const plot = figure.querySelector(".plot");
  const svg = figure.querySelector("svg");
  const cursor = figure.querySelector(".cursor");
  const tip = figure.querySelector(".tip");
  const nearest = (points, x) =>
    points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
  const hide = () => {
    tip.style.display = "none";
    cursor.style.visibility = "hidden";
  };
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale;
    const shown = series.filter((line) => line.points.length).map((line) => [line, nearest(line.points, x)]);
    if (!shown.length) return hide();
    const at = shown[0][1];
    tip.replaceChildren();
    tip.append(Object.assign(document.createElement("b"), { textContent: at[2] }));
    for (const [line, point] of shown) {
      const row = Object.assign(document.createElement("div"), { className: line.class });
      row.append(Object.assign(document.createElement("span"), { textContent: line.name + " " }), point[3]);
      tip.append(row);
    }
    cursor.setAttribute("x1", at[0]);
    cursor.setAttribute("x2", at[0]);
    cursor.style.visibility = "visible";
    tip.style.display = "block";
    const left = at[0] / scale + 14;
    tip.style.left = (left + tip.offsetWidth > box.width ? left - tip.offsetWidth - 28 : left) + "px";
  });
}
