// Prints the events of an EventSource and ends after some of them. Arguments: URL, count.
import { EventSource } from 'eventsource';

const [url, count] = process.argv.slice(2);
const source = new EventSource(url);
let seen = 0;
const show = (event) => {
  console.log(`${event.type} id=${event.lastEventId} data=${event.data}`);
  seen += 1;
  if (seen === Number(count)) {
    source.close();
  }
};
source.onmessage = show;
source.addEventListener('note', show);
source.onopen = () => console.log('open');
source.onerror = (event) => console.log(`error ${event.code ?? ''}`);
