// Opens a SockJS connection with one transport, sends lines and prints what comes. Arguments: URL, transport.
import SockJS from 'sockjs-client';

const [url, transport] = process.argv.slice(2);
const client = new SockJS(url, null, { transports: [transport] });
client.onopen = () => {
  console.log(`open ${client.transport}`);
  client.send('first');
  client.send('zwölf "quoted"');
};
let seen = 0;
client.onmessage = (event) => {
  console.log(`message ${event.data}`);
  seen += 1;
  if (seen === 2) {
    client.send('bye');
  }
};
client.onclose = (event) => console.log(`close ${event.code} ${event.reason}`);
