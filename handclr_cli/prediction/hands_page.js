"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const get = (id) => document.getElementById(id);
const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
const floats = (text) => new Float32Array(bytes(text).buffer);
const SIDES = ["", "left", "right"], LETTERS = ["", "L", "R"];
const JOINTS = 21, frames = data.frames, hands = data.hands, count = frames.film.length;
const space = floats(hands.space), image = floats(hands.image);
const BONES = [];
for (const finger of data.fingers) {
  let from = 0;
  for (const to of finger.joints) { BONES.push([from, to, finger.colour]); from = to; }
}

// The rows of the hands of each frame.
const onFrame = Array.from(frames.film, () => []);
hands.frame.forEach((place, row) => onFrame[place].push(row));
const joint = (row, number) => {
  const at = 3 * (JOINTS * row + number);
  return [space[at], space[at + 1], space[at + 2]];
};
const nameOf = (row) => [LETTERS[hands.side[row]], hands.track[row] || ""].join(" ").trim() || "hand";

let current = 0, shown = -1, playing = false;
const video = get("film");
let filmed = false;

// Film.

function start() {
  if (!data.film) return silent();
  video.addEventListener("error", silent);
  video.addEventListener("loadeddata", () => { filmed = true; render(); });
  video.addEventListener("seeked", () => { if (wanted !== null) seekFilm(wanted); });
  // The last frame may have been on show before it was told of.
  video.addEventListener("ended", () => { if (playing) show(placeAt(video.currentTime)); pause(); });
  video.src = URL.createObjectURL(new Blob([bytes(data.film)], {type: "video/mp4"}));
  if (video.requestVideoFrameCallback) {
    const follow = (now, about) => {
      if (playing) show(placeAt(about.mediaTime));
      video.requestVideoFrameCallback(follow);
    };
    video.requestVideoFrameCallback(follow);
  } else {
    const follow = () => { if (playing && filmed) show(placeAt(video.currentTime)); requestAnimationFrame(follow); };
    requestAnimationFrame(follow);
  }
}

function silent() {
  filmed = false;
  get("silent").hidden = false;
  if (playing) byClock();
}

// The frame that is on show at a moment of the film.
function placeAt(time) {
  let low = 0, high = count - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (frames.film[middle] <= time + 0.002) low = middle; else high = middle - 1;
  }
  return low;
}

let wanted = null;
function seekFilm(place) {
  if (!data.film || video.error) return;
  if (video.seeking) { wanted = place; return; }
  wanted = null;
  const from = frames.film[place], to = place + 1 < count ? frames.film[place + 1] : from + 0.02;
  video.currentTime = from + (to - from) / 2;
}

function go(place) {
  pause();
  place = Math.min(Math.max(place, 0), Math.max(count - 1, 0));
  seekFilm(place);
  show(place);
}

// Without a film the hands are played by the clock.
let begun = null;
function byClock() {
  begun = {film: frames.film[current], now: performance.now()};
  requestAnimationFrame(tick);
}
function tick(now) {
  if (!playing || filmed) return;
  const time = begun.film + speed() * (now - begun.now) / 1000;
  show(placeAt(time));
  if (current === count - 1) pause(); else requestAnimationFrame(tick);
}

const speed = () => Number(get("speed").value);
function play() {
  if (!count) return;
  if (current === count - 1) go(0);
  playing = true;
  get("play").textContent = "Pause";
  if (!data.film || video.error) return byClock();
  // Some browsers load the film only now; where it fails, `silent` goes on.
  video.playbackRate = speed();
  video.play().catch(() => { if (!video.error) pause(); });
}
function pause() {
  playing = false;
  get("play").textContent = "Play";
  video.pause();
}

// Drawing.

function fitted(canvas) {
  const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
  const width = Math.round(box.width * ratio), height = Math.round(box.height * ratio);
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, box.width, box.height);
  return [pen, box.width, box.height];
}
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const sideColour = (row) => style(["--other", "--left", "--right"][hands.side[row]]);

function line(pen, from, to, colour, width) {
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.lineCap = "round";
  pen.beginPath();
  pen.moveTo(from[0], from[1]);
  pen.lineTo(to[0], to[1]);
  pen.stroke();
}

const within = (value, low, high) => Math.max(low, Math.min(value, high));

// The name of a hand, as near to a place as it can be read whole.
function tag(pen, [x, y], row, [width, height]) {
  const text = nameOf(row), size = 11;
  pen.font = `600 ${size}px system-ui, sans-serif`;
  const wide = pen.measureText(text).width + size * 0.7, high = size * 1.5;
  const at = [within(x, wide / 2, width - wide / 2), within(y, high / 2, height - high / 2)];
  pen.fillStyle = sideColour(row);
  pen.beginPath();
  pen.roundRect(at[0] - wide / 2, at[1] - high / 2, wide, high, size * 0.3);
  pen.fill();
  pen.fillStyle = style("--paper");
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillText(text, at[0], at[1] + size * 0.06);
}

function drawFilm() {
  const [pen, width, height] = fitted(get("drawing"));
  if (!get("skeletons").checked || !count) return;
  const scale = Math.min(width / data.size[0], height / data.size[1]);
  const left = (width - scale * data.size[0]) / 2, top = (height - scale * data.size[1]) / 2;
  for (const row of onFrame[current]) {
    const points = [];
    for (let number = 0; number < JOINTS; number++) {
      const at = 2 * (JOINTS * row + number);
      points.push([left + scale * image[at], top + scale * image[at + 1]]);
    }
    const reach = Math.max(...points.map((point) => Math.hypot(point[0] - points[0][0], point[1] - points[0][1])));
    const thick = Math.min(Math.max(reach / 45, 1.2), 5);
    for (const [from, to] of BONES) line(pen, points[from], points[to], "#ffffffd0", thick + 2);
    for (const [from, to, colour] of BONES) {
      line(pen, points[from], points[to], colour, thick);
      pen.fillStyle = colour;
      pen.beginPath();
      pen.arc(points[to][0], points[to][1], thick * 1.1, 0, 7);
      pen.fill();
    }
    const middle = [5, 9, 13, 17].reduce((sum, number) => [sum[0] + points[number][0] / 4, sum[1] + points[number][1] / 4], [0, 0]);
    const away = [points[0][0] - middle[0], points[0][1] - middle[1]], long = Math.hypot(...away) || 1;
    tag(pen, [points[0][0] + 18 * away[0] / long, points[0][1] + 18 * away[1] / long], row, [width, height]);
  }
}

// 3D: what is where over the whole film, without the farthest few hands, each of which counts whole.

const quantile = (values, share) => {
  const sorted = Float32Array.from(values).sort();
  return sorted.length ? sorted[Math.round(share * (sorted.length - 1))] : 0;
};
const endOf = (which, axis) => hands.frame.map((_, row) => {
  return which(...Array.from({length: JOINTS}, (_, number) => joint(row, number)[axis]));
});
const extent = [0, 1, 2].map((axis) => {
  return [quantile(endOf(Math.min, axis), 0.08), quantile(endOf(Math.max, axis), 0.92)];
});
if (!hands.frame.length) extent.splice(0, 3, [-0.2, 0.2], [-0.15, 0.15], [0.3, 0.7]);
// The floor is under the farthest too, unless they are below the rest by its height, or by a forearm's length.
const deepest = extent[1][1] + Math.max(extent[1][1] - extent[1][0], 0.3);
const lowest = (found, low) => low <= deepest ? Math.max(found, low) : found;
const floorAt = endOf(Math.max, 1).reduce(lowest, extent[1][1]) + 0.06;
// The first view holds it, and the shadows on it.
extent[1][1] = floorAt;
const centre = extent.map(([low, high]) => (low + high) / 2);
const radius = Math.max(0.14, Math.hypot(...extent.map(([low, high]) => high - low)) / 2);
const VIEWS = {tilted: [-0.55, 0.35], camera: [0, 0], top: [0, Math.PI / 2], side: [-Math.PI / 2, 0]};
const look = {yaw: VIEWS.tilted[0], pitch: VIEWS.tilted[1], zoom: 1};

function projector(width, height) {
  const away = 3 * radius / look.zoom, scale = 1.25 * Math.min(width, height);
  const [cosY, sinY, cosP, sinP] = [Math.cos(look.yaw), Math.sin(look.yaw), Math.cos(look.pitch), Math.sin(look.pitch)];
  return ([px, py, pz]) => {
    const [x, y, z] = [px - centre[0], py - centre[1], pz - centre[2]];
    const across = cosY * x - sinY * z, on = sinY * x + cosY * z;
    const down = cosP * y - sinP * on, deep = sinP * y + cosP * on + away;
    if (deep < 0.02 * away) return null;
    return [width / 2 + scale * across / deep, height / 2 + scale * down / deep, deep, scale / deep];
  };
}

function drawSpace() {
  const [pen, width, height] = fitted(get("space")), at = projector(width, height);
  const join = (from, to, colour, thick) => {
    const a = at(from), b = at(to);
    if (a && b) line(pen, a, b, colour, thick);
  };
  drawFloor(pen, at, join);
  drawCamera(join);
  if (!count) return;
  const parts = [];
  for (const row of onFrame[current]) {
    const points = Array.from({length: JOINTS}, (_, number) => joint(row, number));
    for (const [from, to] of BONES) {
      join([points[from][0], floorAt, points[from][2]], [points[to][0], floorAt, points[to][2]], style("--shadow"), 4);
    }
    join(points[0], [points[0][0], floorAt, points[0][2]], style("--floor"), 1);
    for (const [from, to, colour] of BONES) {
      const a = at(points[from]), b = at(points[to]);
      if (a && b) parts.push({deep: (a[2] + b[2]) / 2, a, b, colour});
    }
    const wrist = at(points[0]);
    if (wrist) parts.push({deep: wrist[2] - 0.001, wrist, row});
  }
  parts.sort((one, two) => two.deep - one.deep);
  for (const part of parts) {
    if (part.wrist) {
      const [x, y] = part.wrist, shown = x === within(x, 0, width) && y === within(y, 0, height);
      if (shown) tag(pen, [x, y + 16], part.row, [width, height]);
      continue;
    }
    const thick = Math.min(Math.max(0.007 * (part.a[3] + part.b[3]) / 2, 1.8), 12);
    line(pen, part.a, part.b, part.colour, thick);
    pen.fillStyle = part.colour;
    pen.beginPath();
    pen.arc(part.b[0], part.b[1], thick * 0.85, 0, 7);
    pen.fill();
  }
}

// The floor lies under the hands, in squares of `step` metres, from the camera to behind them.
function drawFloor(pen, at, join) {
  const span = Math.max(extent[0][1] - extent[0][0], extent[2][1]);
  const step = [0.1, 0.2, 0.5, 1, 2, 5].find((size) => span / size <= 12) || span / 12;
  const low = [Math.floor(extent[0][0] / step - 0.5) * step, Math.min(0, Math.floor(extent[2][0] / step) * step)];
  const high = [Math.ceil(extent[0][1] / step + 0.5) * step, Math.ceil(extent[2][1] / step + 0.5) * step];
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  for (let x = low[0]; x <= high[0] + 1e-6; x += step) {
    join([x, floorAt, low[1]], [x, floorAt, high[1]], style("--rule"), 1);
  }
  for (let z = low[1]; z <= high[1] + 1e-6; z += step) {
    join([low[0], floorAt, z], [high[0], floorAt, z], style("--rule"), 1);
    const place = at([high[0] + 0.3 * step, floorAt, z]);
    if (place && Math.abs(look.pitch) + Math.abs(Math.sin(look.yaw)) > 0.2) {
      pen.fillStyle = style("--soft");
      pen.fillText(`${Math.round(100 * z)} cm`, place[0], place[1]);
    }
  }
}

function drawCamera(join) {
  const deep = Math.min(0.06, 0.4 * radius), wide = deep * 0.6, high = wide * data.size[1] / data.size[0];
  const corners = [[-wide, -high, deep], [wide, -high, deep], [wide, high, deep], [-wide, high, deep]];
  corners.forEach((corner, place) => {
    join([0, 0, 0], corner, style("--soft"), 1.2);
    join(corner, corners[(place + 1) % 4], style("--soft"), 1.2);
  });
}

// The time line: tracks that do not meet share a lane.

const LANE = 22, AXIS = 20;
const tracks = new Map();
hands.frame.forEach((place, row) => {
  const name = hands.track[row] ? `${hands.track[row]}` : `${nameOf(row)} ?`;
  if (!tracks.has(name)) tracks.set(name, {row, places: []});
  tracks.get(name).places.push(place);
});
const lanes = [];
for (const track of [...tracks.values()].sort((one, two) => one.places[0] - two.places[0])) {
  const first = track.places[0], last = track.places[track.places.length - 1];
  track.lane = lanes.findIndex((end) => end + Math.ceil(count / 50) < first);
  if (track.lane < 0) track.lane = lanes.push(last) - 1; else lanes[track.lane] = last;
}
const shownLanes = Math.min(Math.max(lanes.length, 1), 12);
const left = [...tracks.values()].filter((track) => track.lane >= shownLanes).length;
get("more").hidden = !left;
get("more").textContent = `${left} more tracks, at the same time as these, have no lane here.`;
get("line").style.height = `${shownLanes * LANE + AXIS}px`;
const lasts = count > 1 ? frames.film[count - 1] + (frames.film[count - 1] - frames.film[0]) / (count - 1) : 1;
const across = (time, width) => 4 + (width - 8) * time / (lasts || 1);
const ends = (place) => place + 1 < count ? frames.film[place + 1] : lasts;

function drawLine() {
  const [pen, width, height] = fitted(get("line"));
  pen.fillStyle = style("--panel");
  pen.fillRect(0, 0, width, height - AXIS);
  for (const track of tracks.values()) {
    if (track.lane >= shownLanes) continue;
    const top = track.lane * LANE + 3, high = LANE - 6;
    pen.fillStyle = sideColour(track.row);
    let begin = track.places[0], before = begin, room = 0;
    for (const place of [...track.places.slice(1), Infinity]) {
      if (place > before + 1) {
        const from = across(frames.film[begin], width), wide = across(ends(before), width) - from;
        pen.fillRect(from, top, Math.max(wide, 1.5), high);
        room = room || wide;
        begin = place;
      }
      before = place;
    }
    const from = across(frames.film[track.places[0]], width);
    pen.font = "600 11px system-ui, sans-serif";
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    if (room > pen.measureText(nameOf(track.row)).width + 8) {
      pen.fillStyle = style("--paper");
      pen.fillText(nameOf(track.row), from + 4, top + high / 2 + 0.5);
    }
  }
  drawAxis(pen, width, height);
  if (!count) return;
  const now = across(frames.film[current], width);
  line(pen, [now, 0], [now, height - AXIS + 4], style("--ink"), 2);
}

function drawAxis(pen, width, height) {
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600].find((size) => lasts / size <= width / 70) || 7200;
  pen.fillStyle = style("--soft");
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.textBaseline = "bottom";
  for (let time = 0; time <= lasts + 1e-9; time += step) {
    const x = across(time, width), text = `${time.toFixed(step < 1 ? 1 : 0)} s`;
    const half = pen.measureText(text).width / 2;
    pen.fillRect(x, height - AXIS, 1, 4);
    pen.fillText(text, within(x, half, width - half), height);
  }
}

// Numbers.

const number = (value) => Math.round(1000 * value).toString().replace("-", "\u2212");
function cell(row, text, kind) {
  const made = document.createElement("td");
  made.textContent = text;
  if (kind) made.className = kind;
  row.append(made);
}
function write() {
  const time = count ? frames.time[current] : null;
  const said = count ? `frame ${frames.number[current]}` : "no frames";
  get("clock").textContent = time === null ? said : `${said}, ${time.toFixed(3)} s`;
  const body = get("readout");
  body.replaceChildren();
  for (const row of count ? onFrame[current] : []) {
    const made = document.createElement("tr");
    cell(made, nameOf(row), SIDES[hands.side[row]]);
    cell(made, hands.score[row] === null ? "" : hands.score[row].toFixed(2));
    joint(row, 0).forEach((value) => cell(made, number(value)));
    body.append(made);
  }
}

function render() {
  drawFilm();
  drawSpace();
  drawLine();
  write();
}
function show(place) {
  current = place;
  if (place !== shown) { shown = place; render(); }
}

// What a reader does.

get("play").onclick = () => playing ? pause() : play();
get("back").onclick = () => go(current - 1);
get("next").onclick = () => go(current + 1);
get("speed").onchange = () => { video.playbackRate = speed(); if (playing && !filmed) play(); };
get("skeletons").onchange = drawFilm;
for (const button of document.querySelectorAll("[data-view]")) {
  button.onclick = () => { [look.yaw, look.pitch] = VIEWS[button.dataset.view]; look.zoom = 1; drawSpace(); };
}
document.addEventListener("keydown", (event) => {
  if (["SELECT", "INPUT"].includes(event.target.tagName)) return;
  const done = {
    ArrowLeft: () => go(current - 1), ArrowRight: () => go(current + 1),
    Home: () => go(0), End: () => go(count - 1),
    " ": () => event.target.tagName === "BUTTON" || get("play").click(),
  }[event.key];
  if (!done || event.ctrlKey || event.metaKey || event.altKey) return;
  if (done() !== true) event.preventDefault();
});

const strip = get("line");
const scrub = (event) => {
  const box = strip.getBoundingClientRect();
  go(placeAt((event.clientX - box.left - 4) / (box.width - 8) * lasts));
};
strip.onpointerdown = (event) => { strip.setPointerCapture(event.pointerId); scrub(event); };
strip.onpointermove = (event) => { if (event.buttons) scrub(event); };

const view = get("space"), touches = new Map();
view.onpointerdown = (event) => {
  view.setPointerCapture(event.pointerId);
  touches.set(event.pointerId, [event.clientX, event.clientY]);
};
view.onpointerup = view.onpointercancel = (event) => touches.delete(event.pointerId);
view.onpointermove = (event) => {
  const before = touches.get(event.pointerId);
  if (!before) return;
  const now = [event.clientX, event.clientY];
  if (touches.size === 1) {
    look.yaw += (now[0] - before[0]) * 0.01;
    look.pitch = Math.min(Math.max(look.pitch + (now[1] - before[1]) * 0.01, -Math.PI / 2), Math.PI / 2);
  } else {
    const [other] = [...touches].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    const apart = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]) || 1;
    zoom(apart(now) / apart(before));
  }
  touches.set(event.pointerId, now);
  drawSpace();
};
const zoom = (share) => { look.zoom = Math.min(Math.max(look.zoom * share, 0.1), 20); };
view.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-0.0015 * event.deltaY));
  drawSpace();
}, {passive: false});

new ResizeObserver(render).observe(document.body);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
start();
const begin = /^#t=([0-9.]+)$/.exec(location.hash);
if (begin && count) {
  const place = placeAt(Number(begin[1]));
  show(place);
  video.addEventListener("loadedmetadata", () => seekFilm(place));
}
render();
})();
