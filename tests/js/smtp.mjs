// A real mail server. Prints its port, then a line of JSON for each mail that it took, parsed with
// mailparser. The first FAIL_FIRST mails are refused temporarily, as a greylisting server does. Ends
// when its standard input does.
import { SMTPServer } from 'smtp-server';
import { simpleParser } from 'mailparser';

let failing = Number(process.env.FAIL_FIRST ?? 0);

const server = new SMTPServer({
  authOptional: false,
  allowInsecureAuth: true,
  hideSTARTTLS: true,
  onAuth({ username, password }, _session, callback) {
    const good = username === 'hook ledger' && password === 'p@ss:word/%';
    callback(good ? null : new Error('wrong user or password'), good ? { user: username } : undefined);
  },
  onMailFrom(_address, _session, callback) {
    if (failing > 0) {
      failing -= 1;
      callback(Object.assign(new Error('try again later'), { responseCode: 451 }));
      return;
    }
    callback();
  },
  async onData(stream, session, callback) {
    const mail = await simpleParser(stream);
    const { mailFrom, rcptTo } = session.envelope;
    console.log(JSON.stringify({
      from: mailFrom.address,
      to: rcptTo.map(({ address }) => address),
      headerTo: mail.to.text,
      headerFrom: mail.from.text,
      subject: mail.subject,
      text: mail.text,
      html: mail.html,
      type: mail.headers.get('content-type').value,
      headers: [...mail.headers.keys()],
    }));
    callback();
  },
});
server.on('error', () => {});
server.listen(0, '127.0.0.1', () => console.log(server.server.address().port));
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
