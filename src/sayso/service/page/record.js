// The microphone, as it is: no noise suppression, which would look like cuts; a 16-bit WAV.
export class Recorder {
  constructor(onLevel) {
    this.onLevel = onLevel;
    this.blocks = [];
  }

  async start() {
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule("/page/worklet.js");
    const tap = new AudioWorkletNode(this.context, "tap", { numberOfOutputs: 0 });
    let peak = 0;
    let count = 0;
    tap.port.onmessage = ({ data }) => {
      this.blocks.push(data);
      for (const sample of data) peak = Math.max(peak, Math.abs(sample));
      if (++count % 16) return;
      this.onLevel(peak);
      peak = 0;
    };
    this.context.createMediaStreamSource(this.stream).connect(tap);
  }

  async stop() {
    const rate = this.context.sampleRate;
    for (const track of this.stream.getTracks()) track.stop();
    await this.context.close();
    return wav(this.blocks, rate);
  }
}

function wav(blocks, rate) {
  const length = blocks.reduce((sum, block) => sum + block.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * length));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * length, true);
  text(8, "WAVEfmt ");
  [[16, 16], [24, rate], [28, 2 * rate], [40, 2 * length]].forEach(([at, value]) => view.setUint32(at, value, true));
  [[20, 1], [22, 1], [32, 2], [34, 16]].forEach(([at, value]) => view.setUint16(at, value, true));
  text(36, "data");
  let at = 44;
  for (const block of blocks)
    for (const sample of block) {
      view.setInt16(at, Math.round(Math.max(-1, Math.min(1, sample)) * 32767), true);
      at += 2;
    }
  return new Blob([view], { type: "audio/wav" });
}
