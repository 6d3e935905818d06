// Waveform, marks and spectrogram of a file, decoded by the browser.
const SIZE = 512;
const drawn = new Map(); // canvas -> how to draw it again, in other colours
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export async function decode(blob) {
  const context = new OfflineAudioContext(1, 1, 16000);
  return context.decodeAudioData(await blob.arrayBuffer());
}

function fitted(canvas) {
  const scale = Math.min(2, window.devicePixelRatio || 1);
  const height = Number(canvas.getAttribute("height"));
  canvas.style.height = `${height}px`;
  const shown = { width: canvas.clientWidth || 600, height };
  const drawing = Object.assign(document.createElement("canvas"), { width: shown.width * scale, height: height * scale });
  return { shown, scale, drawing, pen: drawing.getContext("2d") };
}

function put(canvas, { drawing }) {
  const height = canvas.getAttribute("height");
  canvas.width = drawing.width;
  canvas.height = drawing.height;
  canvas.getContext("2d").drawImage(drawing, 0, 0);
  canvas.height === Number(height) || canvas.setAttribute("data-height", height);
}

// marks: [{name, where: [[from, to] in seconds]}], each a band of its own colour.
export function waveform(canvas, audio, marks = []) {
  drawn.set(canvas, () => waveform(canvas, audio, marks));
  if (canvas.dataset.height) canvas.setAttribute("height", canvas.dataset.height);
  const place = fitted(canvas);
  const { pen, scale, shown } = place;
  const samples = audio.getChannelData(0);
  pen.scale(scale, scale);
  const room = marks.length * 10;
  const middle = room + (shown.height - room) / 2;
  const loudest = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 1e-3);
  const half = ((shown.height - room) / 2 - 2) / loudest;
  marks.forEach((mark, row) => {
    for (const [from, to] of mark.where) {
      const left = (from / audio.duration) * shown.width;
      const width = Math.max(2, ((to - from) / audio.duration) * shown.width);
      pen.fillStyle = colour(`--${mark.name}`);
      pen.fillRect(left, row * 10 + 1, width, 7);
      pen.globalAlpha = 0.1;
      pen.fillRect(left, room, width, shown.height - room);
      pen.globalAlpha = 1;
    }
  });
  pen.fillStyle = colour("--ink");
  const step = samples.length / shown.width;
  for (let x = 0; x < shown.width; x++) {
    let low = 0;
    let high = 0;
    for (let i = Math.floor(x * step); i < (x + 1) * step; i++) {
      low = Math.min(low, samples[i] ?? 0);
      high = Math.max(high, samples[i] ?? 0);
    }
    pen.fillRect(x, middle - high * half, 1, Math.max(1, (high - low) * half));
  }
  put(canvas, place);
}

export function spectrogram(canvas, audio) {
  drawn.set(canvas, () => spectrogram(canvas, audio));
  if (canvas.dataset.height) canvas.setAttribute("height", canvas.dataset.height);
  const place = fitted(canvas);
  const { pen, drawing } = place;
  const samples = audio.getChannelData(0);
  const bins = Math.min(SIZE / 2, Math.round((8000 / audio.sampleRate) * SIZE));
  const image = pen.createImageData(drawing.width, drawing.height);
  const ink = rgb(colour("--ink"));
  const paper = rgb(colour("--warn-paper"));
  for (let x = 0; x < drawing.width; x++) {
    const column = power(samples, Math.round((x / drawing.width) * (samples.length - SIZE)));
    for (let y = 0; y < drawing.height; y++) {
      const bin = Math.floor((1 - (y + 1) / drawing.height) * bins);
      const share = Math.min(1, Math.max(0, (10 * Math.log10(column[bin] + 1e-12) + 75) / 75));
      const at = 4 * (y * drawing.width + x);
      for (let c = 0; c < 3; c++) image.data[at + c] = paper[c] + share * (ink[c] - paper[c]);
      image.data[at + 3] = 255;
    }
  }
  pen.putImageData(image, 0, 0);
  put(canvas, place);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((again) => again()));

const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

// Power spectrum of a Hann window: an in-place radix-2 FFT.
function power(samples, start) {
  const re = new Float32Array(SIZE);
  const im = new Float32Array(SIZE);
  const bits = Math.log2(SIZE);
  for (let i = 0; i < SIZE; i++) {
    let turned = 0;
    for (let b = 0; b < bits; b++) turned |= ((i >> b) & 1) << (bits - 1 - b);
    re[turned] = (samples[start + i] ?? 0) * (0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));
  }
  for (let width = 2; width <= SIZE; width *= 2) {
    for (let k = 0; k < width / 2; k++) {
      const c = Math.cos((2 * Math.PI * k) / width);
      const s = -Math.sin((2 * Math.PI * k) / width);
      for (let a = k; a < SIZE; a += width) {
        const b = a + width / 2;
        const r = re[b] * c - im[b] * s;
        const j = re[b] * s + im[b] * c;
        [re[b], im[b]] = [re[a] - r, im[a] - j];
        [re[a], im[a]] = [re[a] + r, im[a] + j];
      }
    }
  }
  return re.map((value, i) => (value * value + im[i] * im[i]) / SIZE);
}
