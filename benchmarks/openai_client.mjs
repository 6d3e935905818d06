// OpenAI's client for Node against `sayso serve`: a whole file, and one as it comes.
// npm install openai; node benchmarks/openai_client.mjs http://127.0.0.1:8080/v1 TOKEN FOLDER; sayso detect FOLDER
import { createWriteStream, writeFileSync } from "node:fs";
import { Readable } from "node:stream";
import { finished } from "node:stream/promises";
import { createRequire } from "node:module";

const OpenAI = createRequire(`${process.cwd()}/`)("openai").default; // of the folder it runs in
const [baseURL, apiKey, folder] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey });
const asked = { model: "sayso-mini", voice: "nobody", input: "The cat sat on the mat.", response_format: "wav" };

const whole = await client.audio.speech.create(asked);
writeFileSync(`${folder}/whole.wav`, Buffer.from(await whole.arrayBuffer()));

const streamed = await client.audio.speech.create({ ...asked, response_format: "mp3" });
await finished(Readable.fromWeb(streamed.body).pipe(createWriteStream(`${folder}/streamed.mp3`)));

const refused = await client.audio.speech.create({ ...asked, voice: "alloy" }).catch((error) => error);
console.log(`written; "alloy": ${refused.status} ${refused.code}`);
