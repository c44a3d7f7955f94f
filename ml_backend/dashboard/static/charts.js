// The curves. Their numbers stand in the page, in data attributes; a table holds them, too.
"use strict";
(() => {
  const COLOURS = {
    light: ["#0b62d6", "#b3460f", "#14733d", "#8a3ab9", "#a8174f", "#0d7180", "#6b6000", "#5c5c66"],
    dark: ["#6aa8ff", "#ff9a5c", "#5fce8b", "#cf97f5", "#ff7fae", "#5fd0e0", "#d6c84b", "#b9b9c4"],
  };
  const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3]];
  const charts = [];

  const theme = () => (document.documentElement.dataset.theme === "dark" ? "dark" : "light");
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (index) => COLOURS[theme()][index % 8];
  const dash = (index) => DASHES[Math.floor(index / 8) % 4];

  function axis(title, more, ticks) {
    const grid = style("--pico-muted-border-color"), text = style("--pico-muted-color");
    return { title: { display: Boolean(title), text: title, color: text }, ticks: { color: text, maxRotation: 0, autoSkipPadding: 16, ...ticks }, grid: { color: grid }, border: { color: grid }, ...more };
  }

  // Lines at the end of an axis are drawn whole: they may reach over the edge by their own width.
  function options(more) {
    return {
      clip: 8, layout: { padding: 8 }, responsive: true, maintainAspectRatio: false, animation: false, interaction: { mode: "nearest", axis: "x", intersect: false },
      ...more,
    };
  }

  function legend(display) {
    return { display, position: "bottom", labels: { color: style("--pico-color"), boxWidth: 18, boxHeight: 2, padding: 10 } };
  }

  function draw(canvas, make) {
    let chart = null;
    const redraw = () => {
      const hidden = chart ? chart.data.datasets.map((_, at) => !chart.isDatasetVisible(at)) : null;
      if (chart) chart.destroy();
      const config = make();
      if (hidden) config.data.datasets.forEach((dataset, at) => { dataset.hidden = hidden[at]; });
      chart = new Chart(canvas, config);
    };
    charts.push(redraw);
    redraw();
    return redraw;
  }

  function learningCurve(canvas) {
    const curve = JSON.parse(canvas.dataset.curve), ofClasses = JSON.parse(canvas.dataset.colours);
    const chosen = (name) => document.querySelector(`.choices input[name=${name}]:checked`).value;
    const config = () => {
      const measure = chosen("measure"), x = chosen("axis"), byClass = measure === "miou" ? "classIou" : "classDice";
      const points = [...curve.points].sort((a, b) => a[x] - b[x] || a.version - b.version);
      const lowest = floor(points, byClass, measure);
      const line = (label, value, at, wide, shade = colour(at)) => ({
        label, data: points.map((point) => ({ x: point[x], y: value(point), text: value(point.texts), version: point.version, accepted: point.accepted })),
        intervals: wide ? points.map((point) => point.intervals[measure]) : null,
        borderColor: shade, backgroundColor: shade, borderDash: dash(at), borderWidth: wide ? 3 : 1.5, tension: 0, spanGaps: true,
        pointRadius: wide ? 4 : 2.5,
        pointBackgroundColor: points.map((point) => (point.accepted ? shade : style("--pico-background-color"))),
        // A version that was kept back is a point beside the line of those that served.
        segment: { borderColor: (part) => (points[part.p0DataIndex].accepted && points[part.p1DataIndex].accepted ? undefined : `${shade}55`) },
        hidden: !wide && curve.classes.length > 8,
      });
      const mean = line(measure === "miou" ? "mean IoU" : "mean Dice", (point) => point[measure], 0, true);
      const classes = curve.classes.map((name, at) => line(name, (point) => point[byClass][at], at + 1, false, ofClasses[name] ? readable(ofClasses[name]) : colour(7)));
      const tooltip = {
        callbacks: {
          title: (items) => `version ${items[0].raw.version}, ${x === "hours" ? `${items[0].raw.x.toFixed(2)} hours` : `${items[0].raw.x} labels`}${items[0].raw.accepted ? "" : " (kept back)"}`,
          label: (item) => `${item.dataset.label}: ${item.raw.text || "–"}`,
        },
      };
      return {
        type: "line", data: { datasets: [mean, ...classes] }, plugins: [INTERVALS],
        options: options({
          plugins: { legend: legend(true), tooltip },
          scales: {
            x: x === "hours" ? axis("hours of labelling", { type: "linear", beginAtZero: true }) : axis("labels", { type: "linear", ...whole(points.map((point) => point.labels)) }, WHOLE),
            y: axis(`${measure === "miou" ? "IoU" : "Dice"}${lowest ? ` (axis from ${lowest.toFixed(1)})` : ""}`, { min: lowest, max: 1 }),
          },
        }),
      };
    };
    const redraw = draw(canvas, config);
    for (const input of document.querySelectorAll(".choices input")) input.addEventListener("change", redraw);
  }

  // Bars from the lower to the upper end of the interval of each point, under the lines.
  const INTERVALS = {
    id: "intervals",
    beforeDatasetsDraw(chart) {
      const { ctx, chartArea } = chart, cap = 4;
      chart.data.datasets.forEach((dataset, at) => {
        if (!dataset.intervals || !chart.isDatasetVisible(at)) return;
        const { xScale, yScale } = chart.getDatasetMeta(at);
        ctx.save();
        ctx.beginPath();
        ctx.rect(chartArea.left - 8, chartArea.top - 8, chartArea.width + 16, chartArea.height + 16);
        ctx.clip();
        ctx.strokeStyle = dataset.borderColor;
        ctx.lineWidth = 1.5;
        ctx.globalAlpha = 0.6;
        ctx.beginPath();
        dataset.intervals.forEach(([low, high], index) => {
          if (low === null) return;
          const x = xScale.getPixelForValue(dataset.data[index].x), ends = [low, high].map((end) => yScale.getPixelForValue(end));
          ctx.moveTo(x, ends[0]);
          ctx.lineTo(x, ends[1]);
          for (const y of ends) { ctx.moveTo(x - cap, y); ctx.lineTo(x + cap, y); }
        });
        ctx.stroke();
        ctx.restore();
      });
    },
  };

  // There is no half a label: neither at the ends of an axis nor between.
  const WHOLE = { precision: 0, callback: (value) => (Number.isInteger(value) ? value : "") };
  function whole(values) {
    const least = Math.min(...values), most = Math.max(...values), room = Math.ceil((most - least) * 0.03) || 1;
    return { min: Math.max(0, least - room), max: most + room };
  }

  // The colour that a class has in masks, darker or lighter where it could not be seen on the page.
  function readable(hex) {
    const ground = theme() === "dark" ? 0 : 255, shade = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    const brightness = 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2];
    const lacking = 90 - Math.abs(brightness - ground);
    const factor = lacking <= 0 ? 0 : lacking / (ground ? brightness : 255 - brightness);
    return `#${shade.map((part) => Math.round(ground ? part * (1 - factor) : part + (255 - part) * factor).toString(16).padStart(2, "0")).join("")}`;
  }

  // The axis begins a little below the lowest point: what the last labels brought should be seen.
  function floor(points, byClass, measure) {
    const values = points.flatMap((point) => [point[measure], point.intervals[measure][0], ...point[byClass]]).filter((value) => value !== null);
    return Math.max(0, Math.floor((Math.min(...values) - 0.02) * 10) / 10);
  }

  function series(canvas) {
    const given = JSON.parse(canvas.dataset.series);
    draw(canvas, () => ({
      type: "line",
      data: {
        labels: given.names,
        datasets: [{ label: given.title, data: given.values, borderColor: colour(0), backgroundColor: colour(0), borderWidth: 2, pointRadius: 3, tension: 0, spanGaps: true }],
      },
      options: options({
        plugins: { legend: { display: false }, title: { display: true, text: given.title, color: style("--pico-color"), font: { weight: "600" } }, tooltip: { callbacks: { title: (items) => `labels ${items[0].label}` } } },
        scales: { x: axis("labels, oldest first"), y: axis("", { beginAtZero: true, max: given.max }) },
      }),
    }));
  }

  // A version's training: the loss falls, and the measure on held-out labels should rise.
  function course(canvas) {
    const given = JSON.parse(canvas.dataset.course);
    const loss = given.loss.map(([x, y]) => ({ x, y, text: y.toFixed(3) })), miou = given.miou.map(({ step, value, text }) => ({ x: step, y: value, text }));
    const intervals = given.miou.map(({ low, high }) => [low, high]);
    const line = (label, data, at, axisName) => ({ label, data, yAxisID: axisName, borderColor: colour(at), backgroundColor: colour(at), borderWidth: 2, pointRadius: data.length > 40 ? 0 : 3, tension: 0 });
    draw(canvas, () => ({
      type: "line",
      data: { datasets: [line("loss", loss, 0, "y"), ...(miou.length ? [{ ...line("held-out mIoU", miou, 1, "miou"), intervals }] : [])] }, plugins: [INTERVALS],
      options: options({
        plugins: { legend: legend(true), tooltip: { callbacks: { title: (items) => `step ${items[0].raw.x}`, label: (item) => `${item.dataset.label}: ${item.raw.text}` } } },
        scales: {
          x: axis("step", { type: "linear", min: 0, max: Math.max(...given.loss.map(([x]) => x)) }, WHOLE),
          y: axis("loss", { beginAtZero: true }),
          ...(miou.length ? { miou: axis("held-out mIoU", { position: "right", min: 0, max: 1, grid: { drawOnChartArea: false } }) } : {}),
        },
      }),
    }));
  }

  function pairs(canvas) {
    const given = JSON.parse(canvas.dataset.pairs);
    const most = Math.max(...given.pairs.flat());
    draw(canvas, () => ({
      type: "scatter",
      data: {
        datasets: [
          { label: "tasks with regions", data: given.pairs.map(([x, y]) => ({ x, y })), backgroundColor: `${colour(0)}99` },
          { label: "predicted = actual", type: "line", data: [{ x: 0, y: 0 }, { x: most, y: most }], borderColor: style("--pico-muted-color"), borderDash: [4, 4], borderWidth: 1, pointRadius: 0 },
        ],
      },
      options: options({
        plugins: { legend: { display: false }, title: { display: true, text: `Predicted and actual ${given.measure} per task`, color: style("--pico-color"), font: { weight: "600" } } },
        scales: { x: axis(`predicted ${given.measure}`, { beginAtZero: true }), y: axis(`actual ${given.measure}`, { beginAtZero: true }) },
      }),
    }));
  }

  Chart.defaults.font.family = style("--pico-font-family") || Chart.defaults.font.family;
  for (const canvas of document.querySelectorAll("[data-curve]")) learningCurve(canvas);
  for (const canvas of document.querySelectorAll("[data-series]")) series(canvas);
  for (const canvas of document.querySelectorAll("[data-pairs]")) pairs(canvas);
  for (const canvas of document.querySelectorAll("[data-course]")) course(canvas);
  document.addEventListener("nextmask:theme", () => { for (const redraw of charts) redraw(); });
})();
