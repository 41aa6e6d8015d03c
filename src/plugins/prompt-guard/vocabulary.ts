/**
 * Words by what they do in an instruction to a model, in several languages. A word means nothing by itself: rules ask for
 * several of them close to each other.
 */
import { canonicalWord } from "./words.ts";

/** What words do; one bit each, so that a window of words is one number. */
export const cls = {
  override: 1,
  overrideLast: 2,
  prior: 4,
  instructions: 8,
  rules: 16,
  all: 32,
  the: 64,
  my: 128,
  not: 256,
  tell: 512,
  user: 1024,
  send: 2048,
  secret: 4096,
  talk: 8192,
  reveal: 16_384,
  you: 32_768,
  now: 65_536,
  fresh: 131_072,
  ai: 262_144,
  tool: 524_288,
  call: 1_048_576,
  first: 2_097_152,
  say: 4_194_304,
  act: 8_388_608,
  unbound: 16_777_216,
  address: 33_554_432,
  must: 67_108_864,
  mention: 134_217_728,
  system: 268_435_456,
  quiet: 536_870_912,
} as const;

type ClassName = keyof typeof cls;

/** A star at the end stands for any ending. */
const table: Readonly<Record<ClassName, string>> = {
  override: `ignore ignores ignoring disregard* forget forgets overlook override overriding bypass neglect discard
    ignorier* vergiss vergesst vergessen missachte* ignorez ignorer ignore oublie* ignora ignorad ignoren ignorar
    olvida* omite ignori dimentica* ignorate trascura* ignorem esqueca* esquece* desconsider* negeer vergeet
    игнорир* забудь* проигнорир* отбрось* zignoruj ignoruj* zapomnij* pomin bỏ abaikan تجاهل* انس* התעלם* שכח*`,
  overrideLast: `sayin gel unut* gormezden yoksay* अनदेखा नजरअंदाज भूल इग्नोर`,
  prior: `previous previously prior above earlier preceding foregoing initial original existing your system safety told
    given vorherig* vorangegangen* bisherig* fruheren obig* precedent* anterieur* anterior* previas previos precedenti
    vorige eerdere voorgaande предыдущ* прежн* предшеств* выше poprzedni* wczesniejsz* السابق* onceki पिछले पिछली पहले
    ci-dessus arriba acima sopra trước sebelumnya tu su tus sus deine deinen ton votre seu sua tuo twoj твой свой הקודמ* קודמ*`,
  instructions: `instruction* prompt prompts directive* guideline* directions programming anweisung* instruktion* vorgaben
    consigne* instrucciones indicaciones istruzion* instrucoes instructie* инструкц* указани* polecen* instrukcj*
    التعليمات تعليمات talimat* निर्देश* निर्देशों lệnh instruksi perintah הוראות ההוראות הנחיות ההנחיות`,
  rules: `rules context commands orders constraints restrictions message messages everything training regeln alles regles
    reglas todo regole tutto regras tudo regels правил* команд* zasad* القواعد kural*`,
  all: `all any every each full entire complete whole alle sammtliche saemtliche tous toutes todas todos tutte tutti todas alle все всех wszystkie
    جميع كل tum butun सभी tất semua`,
  the: `the these those our`,
  my: `my mine mein meine mon mes mi mis moje мои`,
  not: `not never dont don cannot without nicht niemals ohne ne pas jamais sans no nunca sin non mai senza nao sem niet
    nooit zonder не никогда без nie bez لا دون asla olmadan`,
  tell: `tell telling mention mentioning inform informing notify notifying alert alerting disclose disclosing reveal
    revealing sage sagen erwahn* informier* mitteil* dis dites dire mentionn* informe* informar digas diga mencion* dile
    avis* dica dire informare menziona* diga mencione vertel* meld* говори* сообща* упомин* mow wspomin* informuj تخبر
    تذكر soyleme* bahsetme*`,
  user: `user users human person customer operator owner nutzer* benutzer* anwender* utilisateur* usuario* utent* gebruiker*
    пользовател* uzytkownik* المستخدم kullanici* उपयोगकर्ता`,
  send: `send sends sending post forward upload transmit exfiltrate exfiltrating leak email submit deliver append paste
    encode copy sende* schick* ubermittle* leite envoie* envoyez transmet* envia* enviar manda* invia* inviare envie
    stuur* отправ* перешл* wyslij* przeslij* أرسل gonder* भेज*`,
  secret: `password passwords credential credentials secret secrets token tokens apikey keys key ssh id_rsa cookie cookies
    passwort* zugangsdaten geheimnis* schlussel motdepasse identifiants clave* contrasena* credenciales chiave credenziali
    senha* credenciais wachtwoord* парол* ключ* секрет* hasl* klucz* كلمة المرور sifre* पासवर्ड env environment dotenv`,
  talk: `conversation conversations chat history transcript memory messages dialogue gesprach* verlauf historique
    conversacion historial conversazione historico gesprek переписк* истори* rozmow* محادثة sohbet`,
  reveal: `reveal print repeat output show display dump leak recite disclose zeige verrate gib revele* affiche* montre*
    revela* muestra* mostra* rivela* imprime toon покаж* раскро* выведи* pokaz* ujawnij اكشف goster*`,
  you: `you youre your du sie vous tu usted voce u je ты вы`,
  now: `now henceforth onwards jetzt maintenant ahora adesso agora nu теперь сейчас teraz الآن simdi अब`,
  fresh: `new updated real actual true revised neue nouvelles nuevas nuove novas nieuwe новые nowe جديدة yeni`,
  ai: `ai llm llms assistant assistants chatbot agent agents gpt chatgpt claude gemini copilot bot ki assistent* ia
    asistente assistente ии ассистент* asystent*`,
  tool: `tool tools function functions endpoint plugin werkzeug outil herramienta strumento ferramenta инструмент*`,
  call: `call calls called calling use using invoke execute run trigger read open access fetch rufe nutze appelle utilise usa llama
    вызов* прочита* lies`,
  first: `before first always instead must prior afterwards zuerst bevor toujours avant antes siempre prima sempre сначала`,
  say: `say reply respond answer output write state antworte* reponds responde rispondi ответь* скажи*`,
  act: `act pretend roleplay behave become simulate imagine tue agis actua agisci aja притвор* udawaj`,
  unbound: `dan jailbroken unrestricted unfiltered uncensored evil unlimited unhinged developer sudo root admin god
    unconstrained maintenance debug`,
  address: `attention note dear hey message instruction instructions important notice reminder hello achtung hinweis
    atencion attenzione atencao внимание uwaga`,
  must: `must mandatory important critical urgent required immediately priority musst wichtig obligatoire importante
    imperatif важно должен wazne`,
  mention: `to would can could may might that which who they it says said saying called like as zu`,
  system: `system administrator root developer admin operator`,
  quiet: `silently secretly quietly covertly discreetly heimlich secretement secretamente тайно potajemnie`,
};

interface Stem {
  readonly stem: string;
  readonly bits: number;
}

const exact = new Map<string, number>();
const stems = new Map<string, Stem[]>();
const stemKeyChars = 3;
const maxWordChars = 24;

for (const [name, words] of Object.entries(table)) {
  const bit = cls[name as ClassName];
  for (const word of words.split(/\s+/)) {
    if (!word.endsWith("*")) {
      const key = canonicalWord(word);
      exact.set(key, (exact.get(key) ?? 0) | bit);
      continue;
    }
    const stem = canonicalWord(word.slice(0, -1));
    const key = stem.slice(0, stemKeyChars);
    stems.set(key, [...(stems.get(key) ?? []), { stem, bits: bit }]);
  }
}

/** What the word does; 0 where it is nothing that rules know. A word that is very long is none. */
export function classesOf(word: string): number {
  if (word.length > maxWordChars) return 0;
  let bits = exact.get(word) ?? 0;
  for (const { stem, bits: more } of stems.get(word.slice(0, stemKeyChars)) ?? []) {
    if (word.startsWith(stem)) bits |= more;
  }
  return bits;
}
