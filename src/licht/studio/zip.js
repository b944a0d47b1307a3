// A zip of files as they are: pictures are compressed already. After PKWARE's APPNOTE 6.3, methods and fields of "stored".
const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let value = n;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value >>> 0;
});

export function crc32(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 0xff] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

const UTF8_NAMES = 0x0800;
const FIRST_DAY = 0x21; // 1 January 1980: the format's first, the same for every export

function record(signature, fields, ...rest) {
  const bytes = new Uint8Array(4 + fields.reduce((sum, [size]) => sum + size, 0));
  const seen = new DataView(bytes.buffer);
  seen.setUint32(0, signature, true);
  let at = 4;
  for (const [size, value] of fields) {
    if (size === 2) seen.setUint16(at, value, true);
    else seen.setUint32(at, value, true);
    at += size;
  }
  return [bytes, ...rest];
}

/** `files` are [name, Uint8Array]. Returns a Blob. */
export function zip(files) {
  const [body, directory] = [[], []];
  let offset = 0;
  for (const [name, data] of files) {
    const label = new TextEncoder().encode(name);
    const common = [[2, 20], [2, UTF8_NAMES], [2, 0], [2, 0], [2, FIRST_DAY], [4, crc32(data)], [4, data.length], [4, data.length], [2, label.length], [2, 0]];
    const local = record(0x04034b50, common, label, data);
    directory.push(...record(0x02014b50, [[2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]], label));
    body.push(...local);
    offset += local.reduce((sum, part) => sum + part.length, 0);
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = record(0x06054b50, [[2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, offset], [2, 0]]);
  return new Blob([...body, ...directory, ...end], { type: "application/zip" });
}
