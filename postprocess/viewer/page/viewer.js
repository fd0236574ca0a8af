// A forecaster's page over published cycles: reads index.json and the atlas of a run, nothing else.

const FORECAST = "forecast.zarr";
const COLUMNS = 240, ROWS = 121, STEP = 1.5, HOUR = 3.6e6;
// Published 8 h after its start, a cycle is 14 h old when the next one comes.
const EXPECTED_AGE_HOURS = 15;
const REFRESH_MINUTES = 5;
const SHOWN = {
  temperature: ["°C", (v) => v - 273.15, "cividis"],
  "2m_temperature": ["°C", (v) => v - 273.15, "cividis"],
  mean_sea_level_pressure: ["hPa", (v) => v / 100, "viridis"],
  geopotential: ["gpdm", (v) => v / 98.0665, "viridis"],
  specific_humidity: ["g/kg", (v) => v * 1000, "cividis"],
  wind_speed: ["m/s", (v) => v, "magma"],
  "10m_wind_speed": ["m/s", (v) => v, "magma"],
};

const at = (id) => document.getElementById(id);
const named = (field) =>
  field.variable.replaceAll("_", " ") + (field.level_hpa === null ? "" : ` ${field.level_hpa} hPa`);
const label = (time) => new Date(time).toISOString().slice(0, 13) + "Z";

// What is shown, always all of one cycle; `tracks` is null when they could not be read.
const view = {
  index: null, trouble: "", world: null, entry: null, atlas: null, mean: null, std: null, tracks: null, place: null,
};
const wanted = new URLSearchParams(location.hash.slice(1));
let playing = null, asked = 0;

async function json(address) {
  const answer = await fetch(address, { cache: "no-cache" });
  if (!answer.ok) throw new Error(`${address}: ${answer.status} ${answer.statusText}`);
  return answer.json();
}

async function picture(address) {
  const image = new Image();
  image.src = address;
  try {
    await image.decode();
  } catch {
    throw new Error(`${address} cannot be read`);
  }
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, image.width, image.height).data;
  return Uint8Array.from({ length: pixels.length / 4 }, (_, i) => pixels[4 * i]);
}

function say(text, level) {
  at("state").textContent = text;
  at("state").dataset.level = level;
}

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => new Option(text, value, false, value === chosen)));
}

function tellState() {
  const newest = view.index?.cycles[0];
  if (!newest) return view.trouble ? say(view.trouble, "bad") : say("nothing is published yet", "warn");
  const age = (Date.now() - Date.parse(newest.init_time)) / HOUR;
  const told = `newest cycle ${newest.cycle}, ${age.toFixed(0)} h old`;
  if (view.trouble) return say(`${told}: ${view.trouble}`, "bad");
  if (age > EXPECTED_AGE_HOURS) return say(`${told}: late, the next one should be here`, "bad");
  if (newest.health.length) return say(`${told}, ${newest.health.length} members put aside`, "warn");
  return say(`${told}, ${newest.members} healthy members`, "well");
}

// Read the catalogue again: what is new, what was removed, how old the newest cycle is.
async function refresh() {
  try {
    view.index = await json("index.json");
    view.trouble = "";
  } catch (error) {
    view.trouble = `the catalogue cannot be read: ${error.message}`;
    return tellState();
  }
  const cycles = view.index.cycles;
  options(at("cycle"), cycles.map((entry) => [entry.cycle, entry.cycle]), at("cycle").value || wanted.get("cycle"));
  tellState();
  const kept = cycles.find((entry) => entry.href === view.entry?.href);
  if (!kept) return cycles.length ? choose() : undefined;
  view.entry = kept;
  showStores();
}

// Show the chosen cycle and field once everything of them is here. Until then, and when something
// cannot be read, what was shown stays; of several choices only the last is shown.
async function choose() {
  const mine = ++asked, cycle = at("cycle").value, field = at("field").value || wanted.get("field");
  let found;
  try {
    found = await load(view.index.cycles.find((entry) => entry.cycle === cycle) ?? view.index.cycles[0], field);
  } catch (error) {
    if (mine === asked) refuse([field, cycle].filter(Boolean).join(" of "), error);
    return;
  }
  if (mine === asked) show(found);
}

const means = (atlas) => atlas.fields.filter((field) => field.statistic === "mean");

async function load(entry, wish) {
  const [world, atlas, tracks] = await Promise.all([
    view.world ?? json("viewer/world.json"),
    json(`${entry.href}/atlas/atlas.json`),
    json(`${entry.href}/tracks.geojson`).then((found) => found.features, () => null),
  ]);
  const name = named(means(atlas).find((field) => named(field) === wish) ?? means(atlas)[0]);
  const [mean, std] = await Promise.all(["mean", "std"].map(async (statistic) => {
    const field = atlas.fields.find((each) => each.statistic === statistic && named(each) === name);
    return { ...field, grey: await picture(`${entry.href}/atlas/${field.file}`) };
  }));
  return { entry, world, atlas, tracks, mean, std };
}

function show(found) {
  const first = !view.entry;
  Object.assign(view, found);
  at("notice").textContent = view.entry.comment;
  at("notice").hidden = !view.entry.comment;
  at("untracked").hidden = view.tracks !== null;
  options(at("field"), means(view.atlas).map((field) => [named(field), named(field)]));
  showChoice();
  at("lead").max = view.atlas.lead_hours.length - 1;
  if (first && wanted.get("lead")) at("lead").value = wanted.get("lead");
  showFigures();
  showStores();
  tellState();
  draw();
}

function showChoice() {
  at("cycle").value = view.entry.cycle;
  at("field").value = named(view.mean);
}

function refuse(what, error) {
  const told = `cannot show ${what}: ${error.message}`;
  if (!view.entry) return say(told, "bad");
  showChoice();
  say(`${told}; ${named(view.mean)} of ${view.entry.cycle} is still shown`, "bad");
}

// Value in the shown unit at a row from the north and a column from Greenwich; null when missing.
function value(field, lead, row, column) {
  const grey = field.grey[(lead * ROWS + row) * COLUMNS + ((column % COLUMNS) + COLUMNS) % COLUMNS];
  return grey === 0 ? null : convert(field, field.offset + field.scale * grey);
}

function convert(field, number) {
  const convert_ = SHOWN[field.variable]?.[1] ?? ((v) => v);
  return field.statistic === "std" ? convert_(number) - convert_(0) : convert_(number);
}

const unit = (field) => (field.statistic === "std" && SHOWN[field.variable]?.[0] === "°C" ? "K" : SHOWN[field.variable]?.[0] ?? field.units);
const palette = (field) => view.world.colours[field.statistic === "std" ? "magma" : SHOWN[field.variable]?.[2] ?? "viridis"];
const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

function draw() {
  if (!view.mean) return;
  const field = view[at("statistic").value], lead = Number(at("lead").value);
  drawMap(field, lead);
  drawBar(field);
  drawSeries();
  const hours = view.atlas.lead_hours[lead];
  const valid = label(Date.parse(view.entry.init_time) + hours * HOUR);
  at("title").textContent = `${named(field)}, ${at("statistic").selectedOptions[0].text}, ${unit(field)}`;
  at("when").textContent = `+${hours} h, valid ${valid}`;
  const state = { cycle: view.entry.cycle, field: named(field), statistic: field.statistic, lead };
  history.replaceState(null, "", "#" + new URLSearchParams(state));
}

function drawMap(field, lead) {
  const map = at("map"), context = map.getContext("2d");
  const colours = palette(field).map(rgb), small = new OffscreenCanvas(COLUMNS, ROWS);
  const pixels = new ImageData(COLUMNS, ROWS);
  for (let row = 0; row < ROWS; row++)
    for (let x = 0; x < COLUMNS; x++) {
      // The map runs from 180 W to 180 E, the picture from Greenwich eastward.
      const grey = field.grey[(lead * ROWS + row) * COLUMNS + ((x + COLUMNS / 2) % COLUMNS)];
      if (grey === 0) continue;
      const [red, green, blue] = colours[Math.round(((grey - 1) / 254) * (colours.length - 1))];
      pixels.data.set([red, green, blue, 255], 4 * (row * COLUMNS + x));
    }
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.clearRect(0, 0, map.width, map.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, map.width, map.height);
  drawLines(context, view.world.coastlines.map((line) => pairs(line)), "#000", 0.8);
  if (at("tracks").checked) drawLines(context, trackLines(), "#fff", 1.2);
  if (view.place) drawPlace(context);
}

function pairs(line) {
  return Array.from({ length: line.length / 2 }, (_, i) => [line[2 * i] / 100, line[2 * i + 1] / 100]);
}

function trackLines() {
  const shapes = (view.tracks ?? []).map((feature) => feature.geometry);
  return shapes.flatMap((shape) =>
    shape.type === "LineString" ? [shape.coordinates] : shape.type === "MultiLineString" ? shape.coordinates : []);
}

// Centre of the pixel of a point: the first column of the map is 180 W, the first row 90 N.
const across = (longitude) => ((longitude + 180) / STEP + 0.5) * (at("map").width / COLUMNS);
const down = (latitude) => ((90 - latitude) / STEP + 0.5) * (at("map").height / ROWS);

function drawLines(context, lines, colour, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.beginPath();
  for (const line of lines)
    line.forEach(([x, y], i) => {
      const goesOn = i && Math.abs(x - line[i - 1][0]) < 180; // not over the edge of the map
      context[goesOn ? "lineTo" : "moveTo"](across(x), down(y));
    });
  context.stroke();
}

function drawPlace(context) {
  context.strokeStyle = "#d55e00";
  context.lineWidth = 2;
  context.beginPath();
  context.arc(across(view.place.longitude), down(view.place.latitude), 6, 0, 2 * Math.PI);
  context.stroke();
}

function drawBar(field) {
  const bar = at("bar"), context = bar.getContext("2d"), colours = palette(field);
  colours.forEach((colour, i) => {
    context.fillStyle = colour;
    context.fillRect((i * bar.width) / colours.length, 0, bar.width / colours.length + 1, bar.height);
  });
  at("low").textContent = written(field, 1);
  at("high").textContent = `${written(field, 255)} ${unit(field)}`;
}

const written = (field, grey) => convert(field, field.offset + field.scale * grey).toPrecision(4);

// The grid point under the pointer.
function pointed(event) {
  const box = at("map").getBoundingClientRect();
  const x = Math.min(COLUMNS - 1, Math.floor(((event.clientX - box.left) / box.width) * COLUMNS));
  const row = Math.min(ROWS - 1, Math.floor(((event.clientY - box.top) / box.height) * ROWS));
  return { row, column: x + COLUMNS / 2, longitude: x * STEP - 180, latitude: 90 - row * STEP };
}

const spelt = ({ latitude, longitude }) =>
  `${Math.abs(latitude)}° ${latitude < 0 ? "S" : "N"} ${Math.abs(longitude)}° ${longitude < 0 ? "W" : "E"}`;

function read(event) {
  if (!view.mean) return;
  const place = pointed(event), lead = Number(at("lead").value);
  const [mean, std] = [view.mean, view.std].map((field) => value(field, lead, place.row, place.column));
  const told = mean === null ? "missing" : `${mean.toPrecision(4)} ± ${std?.toPrecision(2) ?? "?"} ${unit(view.mean)}`;
  at("reading").textContent = `${spelt(place)}: ${told} (mean ± spread)`;
}

function drawSeries() {
  const canvas = at("series"), place = view.place;
  canvas.hidden = !place;
  if (!place) return;
  const hours = view.atlas.lead_hours;
  const mean = hours.map((_, lead) => value(view.mean, lead, place.row, place.column));
  const std = hours.map((_, lead) => value(view.std, lead, place.row, place.column) ?? 0);
  const known = hours.map((_, i) => i).filter((i) => mean[i] !== null);
  at("place").textContent = `${named(view.mean)} at ${spelt(place)}, ${unit(view.mean)}: mean and 1, 2 spreads`;
  const context = canvas.getContext("2d"), ink = getComputedStyle(document.body).color;
  const low = Math.min(...known.map((i) => mean[i] - 2 * std[i])), high = Math.max(...known.map((i) => mean[i] + 2 * std[i]));
  const x = (i) => 60 + (hours[i] / (hours.at(-1) || 1)) * (canvas.width - 80);
  const y = (v) => canvas.height - 30 - ((v - low) / (high - low || 1)) * (canvas.height - 45);
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (const [spreads, colour] of [[2, "#0072b233"], [1, "#0072b255"]]) {
    context.fillStyle = colour;
    context.beginPath();
    known.forEach((i) => context.lineTo(x(i), y(mean[i] + spreads * std[i])));
    known.toReversed().forEach((i) => context.lineTo(x(i), y(mean[i] - spreads * std[i])));
    context.fill();
  }
  context.strokeStyle = "#0072b2";
  context.lineWidth = 2;
  context.beginPath();
  known.forEach((i) => context.lineTo(x(i), y(mean[i])));
  context.stroke();
  context.fillStyle = ink;
  context.font = "13px system-ui, sans-serif";
  for (const v of [low, (low + high) / 2, high]) context.fillText(v.toPrecision(4), 2, y(v) + 4);
  hours.forEach((hour, i) => hour % 24 === 0 && context.fillText(`+${hour / 24} d`, x(i) - 10, canvas.height - 8));
  const now = Number(at("lead").value);
  context.strokeStyle = ink;
  context.lineWidth = 1;
  context.strokeRect(x(now), 8, 0, canvas.height - 38);
}

const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

function showFigures() {
  at("figures").replaceChildren(...view.entry.plots.map((href) => {
    const link = document.createElement("a"), image = new Image();
    link.href = image.src = href;
    image.alt = href.split("/").at(-1).replace(/\.\w+$/, "").replaceAll("_", " ");
    image.loading = "lazy";
    link.append(image);
    return link;
  }));
}

function showStores() {
  const kept = view.entry.stores.filter((store) => store.available);
  const whole = kept.some((store) => store.name === FORECAST);
  at("whole").hidden = !whole;
  at("gone").hidden = whole;
  at("open").textContent = whole
    ? `xarray.open_zarr("${new URL(`${view.entry.href}/${FORECAST}`, location.href)}", chunks=None)` : "";
  at("stores").replaceChildren(...kept.map((store) => {
    const row = document.createElement("li");
    row.textContent = `${store.name}, ${size(store.bytes)}`;
    return row;
  }));
}

function step(by) {
  const slider = at("lead"), count = Number(slider.max) + 1;
  slider.value = (Number(slider.value) + by + count) % count;
  draw();
}

function play() {
  clearInterval(playing);
  playing = playing ? null : setInterval(() => step(1), 250);
  at("play").textContent = playing ? "❚❚" : "▶";
}

const guarded = (work) => (...given) =>
  Promise.resolve().then(() => work(...given)).catch((error) => say(`cannot show this: ${error.message}`, "bad"));

function listen() {
  at("cycle").onchange = at("field").onchange = guarded(choose);
  for (const id of ["statistic", "tracks"]) at(id).onchange = draw;
  at("lead").oninput = draw;
  at("play").onclick = play;
  at("map").onpointermove = read;
  at("map").onclick = (event) => {
    view.place = pointed(event);
    draw();
  };
  at("map").onkeydown = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by) step(by);
  };
}

function start() {
  if (wanted.get("statistic")) at("statistic").value = wanted.get("statistic");
  listen();
  setInterval(guarded(refresh), REFRESH_MINUTES * 60_000);
  document.addEventListener("visibilitychange", guarded(() => document.hidden || refresh()));
  return refresh();
}

guarded(start)();
