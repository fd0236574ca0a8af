// SHA-256 of every array of a Zarr v3 group as zarrita reads it: node zarrita_digests.mjs STORE
import { createHash } from "node:crypto";
import FileSystemStore from "@zarrita/storage/fs";
import * as zarr from "zarrita";

const store = await zarr.withConsolidatedMetadata(new FileSystemStore(process.argv[2]), {
  format: "v3",
});
const group = await zarr.open(store, { kind: "group" });
const digests = {};
for (const { path, kind } of store.contents()) {
  if (kind !== "array") continue;
  const array = await zarr.open(group.resolve(path), { kind: "array" });
  const chunk = await zarr.get(array);
  const values = chunk.data ?? Int32Array.of(chunk);
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  digests[path.replace(/^\//, "")] = createHash("sha256").update(bytes).digest("hex");
}
console.log(JSON.stringify(digests));
