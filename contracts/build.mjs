// Compiles the contracts into contracts/abi/*.json, which are committed, so that running needs no compiler.
//   node contracts/build.mjs           writes the files
//   node contracts/build.mjs --check   exits 1 when a committed file differs from a fresh compile
import { readFileSync, writeFileSync, existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const solc = createRequire(import.meta.url)("solc");
const NAMES = ["DMLToken", "DMLEscrow"];

// No metadata hash: the bytes depend on the sources and on nothing else.
const SETTINGS = {
  evmVersion: "cancun",
  optimizer: { enabled: true, runs: 1000 },
  metadata: { bytecodeHash: "none", appendCBOR: false },
};

function compile() {
  const sources = Object.fromEntries(
    NAMES.map((name) => [`contracts/sol/${name}.sol`, { content: read(`contracts/sol/${name}.sol`) }]),
  );
  const selection = ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "evm.deployedBytecode.immutableReferences"];
  const settings = { ...SETTINGS, outputSelection: { "*": { "*": selection } } };
  const input = JSON.stringify({ language: "Solidity", sources, settings });
  const output = JSON.parse(solc.compile(input, { import: resolve }));
  // OpenZeppelin's own transient guard draws a general warning about transient storage: not ours to mend.
  const ours = (problem) => problem.severity === "error" || problem.sourceLocation?.file.startsWith("contracts/");
  const problems = (output.errors ?? []).filter(ours).map((problem) => problem.formattedMessage);
  if (problems.length) throw new Error(problems.join("\n"));
  return output.contracts;
}

const read = (path) => readFileSync(join(root, path), "utf8");

function resolve(path) {
  const file = join("node_modules", path);
  return existsSync(join(root, file)) ? { contents: read(file) } : { error: `${path} is not installed` };
}

function artifact(name, contract) {
  const deployed = contract.evm.deployedBytecode;
  const immutables = Object.values(deployed.immutableReferences).flat().map(({ start, length }) => [start, length]);
  return {
    name,
    compiler: { version: solc.version(), settings: SETTINGS },
    abi: contract.abi,
    bytecode: `0x${contract.evm.bytecode.object}`,
    runtime: `0x${deployed.object}`,
    // [start, length] in bytes: what the constructor writes into the runtime code
    immutables: immutables.sort((a, b) => a[0] - b[0]),
  };
}

/** JSON with a line for each entry of the ABI, so that a diff can be read. */
function render(value) {
  const entries = Object.entries(value).map(([key, item]) => {
    const text = key === "abi" ? `[\n    ${item.map((part) => JSON.stringify(part)).join(",\n    ")}\n  ]` : JSON.stringify(item);
    return `  ${JSON.stringify(key)}: ${text}`;
  });
  return `{\n${entries.join(",\n")}\n}\n`;
}

const contracts = compile();
let stale = 0;
for (const name of NAMES) {
  const path = join(root, "contracts/abi", `${name}.json`);
  const text = render(artifact(name, contracts[`contracts/sol/${name}.sol`][name]));
  if (process.argv.includes("--check")) {
    const same = existsSync(path) && readFileSync(path, "utf8") === text;
    if (!same) console.error(`contracts/abi/${name}.json is not what contracts/sol compiles to: node contracts/build.mjs`);
    stale += same ? 0 : 1;
  } else {
    writeFileSync(path, text);
  }
}
process.exitCode = stale ? 1 : 0;
