// Reads tokens that Assay wrote and writes tokens for Assay to read. JSON in on stdin, JSON out on stdout.
import { readFileSync } from "node:fs";
import { SDJwtInstance } from "@sd-jwt/core";
import { digest, generateSalt, getSigner, getVerifier } from "@sd-jwt/crypto-nodejs";

const asked = JSON.parse(readFileSync(0, "utf8"));
const ED25519 = [{ name: "Ed25519" }, { name: "Ed25519" }];
const open = ({ kty, crv, x }) => ({ kty, crv, x });

const instance = new SDJwtInstance({
  hasher: digest,
  hashAlg: "sha-256",
  saltGenerator: generateSalt,
  signAlg: "Ed25519",
  signer: await getSigner(asked.issuer, ...ED25519),
  verifier: await getVerifier(open(asked.issuer), ...ED25519),
  kbSignAlg: "Ed25519",
  kbSigner: await getSigner(asked.holder, ...ED25519),
  kbVerifier: async (data, signature, payload) => (await getVerifier(payload.cnf.jwk, ...ED25519))(data, signature),
});

const reading = asked.ours.map(async ({ text, nonce }) => {
  try {
    const { payload, kb } = await instance.verify(text, nonce ? { keyBindingNonce: nonce } : {});
    return { payload, binding: kb?.payload ?? null };
  } catch (error) {
    return { error: String(error) };
  }
});

const issued = await instance.issue(asked.claims, asked.frame, { header: { typ: asked.typ } });
const writing = asked.show.map(async ({ frame, kb }) => {
  const text = await instance.present(issued, frame, kb ? { kb: { payload: kb } } : {});
  return {
    compact: text,
    flattened: JSON.stringify(instance.toFlattenJSON(text).toJson()),
    general: JSON.stringify(instance.toGeneralJSON(text).toJson()),
  };
});

process.stdout.write(JSON.stringify({ issued, read: await Promise.all(reading), written: await Promise.all(writing) }));
