/** What an instruction to a model is made of: combinations of words, and forms of speech. All of them are bounded. */
import type { SignalName } from "./findings.ts";
import { cls } from "./vocabulary.ts";

/** A combination: within some words of its anchor, one word of each class. */
export interface PhraseRule {
  readonly name: SignalName;
  readonly anchor: number;
  readonly within: number;
  readonly needs: readonly number[];
  readonly score: number;
  /** The anchor stands behind the others. */
  readonly backwards?: true;
  /** Counts only where it opens a sentence. */
  readonly opening?: true;
}

const given = cls.instructions;
/** Combinations of words. */
export const rules: readonly PhraseRule[] = [
  { name: "override", anchor: cls.override, within: 7, needs: [cls.prior, given], score: 50 },
  { name: "override", anchor: cls.override, within: 6, needs: [cls.prior, cls.rules], score: 35 },
  { name: "override", anchor: cls.override, within: 4, needs: [cls.all, given], score: 40 },
  { name: "override", anchor: cls.override, within: 3, needs: [cls.prior], score: 25 },
  {
    name: "override",
    anchor: cls.overrideLast,
    within: 7,
    needs: [cls.prior, given],
    score: 50,
    backwards: true,
  },
  { name: "secrecy", anchor: cls.not, within: 7, needs: [cls.tell, cls.user], score: 30 },
  { name: "secrecy", anchor: cls.not, within: 3, needs: [cls.tell], score: 10 },
  { name: "secrecy", anchor: cls.quiet, within: 6, needs: [cls.send], score: 20 },
  { name: "secrecy", anchor: cls.quiet, within: 6, needs: [cls.call], score: 15 },
  { name: "exfiltration", anchor: cls.send, within: 14, needs: [cls.talk], score: 20 },
  { name: "exfiltration", anchor: cls.send, within: 9, needs: [cls.talk, cls.all], score: 30 },
  { name: "exfiltration", anchor: cls.send, within: 14, needs: [cls.secret], score: 20 },
  { name: "exfiltration", anchor: cls.send, within: 9, needs: [cls.system, given], score: 30 },
  { name: "reveal", anchor: cls.reveal, within: 7, needs: [cls.prior, given], score: 25 },
  { name: "reveal", anchor: cls.reveal, within: 8, needs: [cls.all, cls.secret], score: 15 },
  { name: "role", anchor: cls.you, within: 4, needs: [cls.now, cls.unbound], score: 30 },
  { name: "role", anchor: cls.you, within: 7, needs: [cls.now, cls.ai], score: 20 },
  { name: "role", anchor: cls.act, within: 6, needs: [cls.unbound], score: 20 },
  { name: "role", anchor: cls.act, within: 6, needs: [cls.not, cls.rules], score: 20 },
  { name: "address", anchor: cls.address, within: 5, needs: [cls.ai], score: 20, opening: true },
  { name: "address", anchor: cls.ai, within: 3, needs: [cls.must], score: 15 },
  { name: "authority", anchor: cls.fresh, within: 3, needs: [given], score: 20, opening: true },
  { name: "authority", anchor: cls.fresh, within: 4, needs: [cls.system, given], score: 25 },
  { name: "authority", anchor: cls.system, within: 2, needs: [cls.override], score: 30 },
  { name: "authority", anchor: cls.system, within: 3, needs: [cls.unbound], score: 10 },
  { name: "tool_call", anchor: cls.call, within: 8, needs: [cls.tool, cls.first], score: 15 },
  { name: "tool_call", anchor: cls.first, within: 6, needs: [cls.call, cls.tool], score: 15 },
  { name: "mandate", anchor: cls.must, within: 1, needs: [], score: 5 },
  { name: "output", anchor: cls.tell, within: 3, needs: [cls.user], score: 10 },
  { name: "output", anchor: cls.say, within: 1, needs: [], score: 8, opening: true },
];

/** Rules for scripts that write no spaces; every one is bounded. */
export const spaceless: readonly (readonly [SignalName, RegExp, number])[] = [
  [
    "override",
    /(?:忽略|无视|無視|不要理会|忘记|忘記|忘掉).{0,10}(?:之前|以前|以上|先前|前面|此前|所有|上述).{0,8}(?:指令|指示|提示|命令|规则|規則|说明)/gu,
    52,
  ],
  [
    "override",
    /(?:之前|以上|先前|前面|所有).{0,8}(?:指令|指示|提示|规则).{0,6}(?:忽略|无视|作废|忘记)/gu,
    52,
  ],
  [
    "override",
    /(?:以前|これまで|上記|前|すべて|全て)の?.{0,8}(?:指示|命令|プロンプト|ルール|指令).{0,6}(?:無視|忘れ|破棄)/gu,
    52,
  ],
  [
    "override",
    /(?:이전|위|앞|기존|모든)의?.{0,8}(?:지시|명령|프롬프트|지침).{0,8}(?:무시|잊어|따르지)/gu,
    52,
  ],
  ["override", /(?:ละเว้น|เพิกเฉย|ไม่สนใจ|ลืม).{0,12}คำสั่ง.{0,12}(?:ก่อน|ทั้งหมด|เดิม)/gu, 52],
  [
    "secrecy",
    /(?:不要|别|別|请勿|請勿).{0,4}(?:告诉|告訴|通知|提及|透露).{0,6}(?:用户|用戶|使用者)/gu,
    30,
  ],
  ["secrecy", /(?:ユーザー?|利用者)に.{0,8}(?:言わ|伝え|知らせ|教え)ない/gu, 30],
  ["secrecy", /사용자에게.{0,8}(?:말하지|알리지|언급하지)/gu, 30],
  [
    "exfiltration",
    /(?:发送|發送|上传|转发|送信|전송|보내).{0,24}(?:密码|密碼|密钥|令牌|パスワード|鍵|비밀번호)/gu,
    25,
  ],
  [
    "exfiltration",
    /(?:密码|密碼|密钥|令牌|对话|パスワード|会話|비밀번호|대화).{0,12}(?:发送|發送|上传|送信|전송|보내)/gu,
    25,
  ],
  [
    "reveal",
    /(?:显示|輸出|输出|透露|表示|공개|출력).{0,10}(?:系统提示|系統提示|システムプロンプト|시스템\s?프롬프트)/gu,
    25,
  ],
];

/** Fixed forms that no rule of words covers. */
export const forms: readonly (readonly [SignalName, RegExp, number])[] = [
  [
    "sensitive",
    /(?:~|\/home\/\w{1,32}|\/root|%USERPROFILE%)[/\\]\.(?:ssh|aws|cursor|claude|kube|gnupg|netrc|env)\b(?![\w/.-]{0,64}\.pub)|\/etc\/(?:passwd|shadow)\b|\bmcp\.json\b|\bid_rsa\b(?!\.pub)/gi,
    12,
  ],
  [
    "authority",
    /^[ \t>*#-]{0,6}(?:\[?(?:system|admin|developer|assistant|ai)\]?)[ \t]{0,2}(?:message|override|prompt|note|instructions?|update|notice|command)?(?:[ \t]{1,2}(?:update|override|message|notice|change))?[ \t]{0,2}:/gim,
    20,
  ],
  [
    "override",
    /\b(?:ignore|disregard|forget)[-_./+]?(?:(?:all|any|the|your|my)[-_./+]?){0,3}(?:previous|prior|above)[-_./+]?(?:instructions?|prompts?|rules)/gi,
    52,
  ],
  [
    "address",
    /\bif\s{1,4}you(?:['’]re|\s{1,4}are)\s{1,4}(?:an?\s{1,4})?(?:ai|llm|large|language|assistant|chatbot|automated|agent)\b/gi,
    25,
  ],
  ["override", /\bfrom\s{1,4}now\s{1,4}on,?\s{1,4}(?:you|your|ignore|only|respond)\b/gi, 15],
  [
    "override",
    /\b(?:end|stop)\s{1,3}of\s{1,3}(?:prompt|instructions?|context|document|user\s{1,3}input)\b.{0,12}(?:new|begin|start|system)/gi,
    30,
  ],
  [
    "output",
    /\b(?:respond|reply|answer)\s{1,3}(?:only|exactly|solely)\s{1,3}with\b|\bsay\s{1,3}["'“]/gi,
    10,
  ],
  [
    "exfiltration",
    /\b(?:curl|wget)\s{1,4}[^\n]{0,200}(?:\$\(|`|\|\s{0,4}(?:base64|xxd)|--data|-d\s|\.ssh|\.env|\bid_rsa)/gi,
    15,
  ],
  [
    "authority",
    /\b(?:SYSTEM|ADMIN|DEVELOPER|SECURITY)(?:[ _](?:PROMPT|MESSAGE|POLICY))?[ _](?:OVERRIDE|UPDATE|ALERT|DIRECTIVE)\b/g,
    30,
  ],
  [
    "authority",
    /\byour\s{1,3}(?:new|only|real|actual|sole|true)\s{1,3}(?:\w{1,16}\s{1,3})?(?:task|goal|job|objective|instructions?|purpose|mission|directive)\b/gi,
    25,
  ],
  [
    "override",
    /\b(?:forget|ignore|disregard)\s{1,3}(?:what|everything|anything|all)\b[^.\n]{0,30}\b(?:said|told|asked|before|above)\b/gi,
    35,
  ],
  [
    "address",
    /\bas\s{1,3}an?\s{1,3}(?:ai|llm|assistant|agent)\b[^.\n]{0,24}\byou\s{1,3}(?:must|should|will|need)\b/gi,
    25,
  ],
  [
    "address",
    /\bwhen(?:ever)?\s{1,3}(?:you\s{1,3})?(?:summari[sz]|read|process|analy[sz]|review|answer|respond|ask)\w{0,5}\b[^.\n]{0,16}\b(?:page|document|file|text|email|message|article|site|question)s?\b/gi,
    20,
  ],
  ["exfiltration", /\bexfiltrat(?:e|ing)\b/gi, 25],
];
