package mailgen

import (
	"math"
	"math/rand/v2"
	"strings"
)

// MailSize draws the size in octets of a message as in real mailboxes:
// log-normal with a median of 8 KiB and a mean of about 45 KiB, at most 32 MiB.
func MailSize(r *rand.Rand) int {
	size := 8 * 1024 * math.Exp(1.9*r.NormFloat64())
	return int(min(max(size, 640), 32<<20))
}

var (
	ascii = strings.Fields(`about after all and any as at be because before both but can come could
		day delivery do each even every find first folder for get give go good had has have he her here
		him his how if in into is it its just know last like list long look made mailbox make man many
		may me meeting message more most much must my new no not now of old on one only or other our out
		over own people place please queue report right said same see server she should so some spool
		still such take tell than that the their them then there these they thing think this time to
		today two under up us use very want was way we week well were what when where which while who
		will with work would year you your 42 2024 1,000 (see below) -- re: e.g. http://www.example.org/`)
	utf8Words = strings.Fields(`Grüße über Straße schön Übung naïve café déjà été où Ærø smörgås
		señor mañana Привет сегодня письмо 会議 明日 お知らせ ελληνικά – “gut” and the list is 20€ ok 📎`)
	latin1Words = strings.Fields("Gr\xfc\xdfe \xfcber Stra\xdfe sch\xf6n \xdcbung caf\xe9 d\xe9j\xe0 \xe9t\xe9 o\xf9 se\xf1or and mail the list \xabfin\xbb ok")
	qpWords     = strings.Fields(`Gr=C3=BC=C3=9Fe =C3=BCber Stra=C3=9Fe sch=C3=B6n caf=C3=A9 a=3Db and the list of mail is =E2=82=AC20 ok`)
	htmlWords   = strings.Fields(`<p>hello</p> <b>new</b> <br> <td>42</td> <a&nbsp;> &amp; </tr><tr> text mail and the list &uuml;ber <i>ok</i>`)
	names       = strings.Fields(`Alice Bob Carol Dave Erin Frank Grace Heidi Ivan Judy Mallory Olivia Peggy Trent Victor Walter`)
	domains     = strings.Fields(`example.org example.com example.net lists.example.org relay.example.net`)
)

const tokenDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

func (g *generator) domain() string { return domains[g.r.IntN(len(domains))] }

func (g *generator) address() string {
	return strings.ToLower(names[g.r.IntN(len(names))]) + "@" + g.domain()
}

// person is an address with a display name, at times an encoded one.
func (g *generator) person(encoded bool) string {
	name := names[g.r.IntN(len(names))]
	switch n := g.r.IntN(8); {
	case n == 0 && encoded:
		name = "=?utf-8?Q?" + name + "_M=C3=BCller?="
	case n == 1:
		name = `"` + name + `, Jr."`
	}
	return name + " <" + g.address() + ">"
}

func (g *generator) words(list []string, n int) string {
	picked := make([]string, n)
	for i := range picked {
		picked[i] = list[g.r.IntN(len(list))]
	}
	return strings.Join(picked, " ")
}

// token is n characters as of an id or a base64 line.
func (g *generator) token(n int) string {
	g.line = g.appendToken(g.line[:0], n)
	return string(g.line)
}

// appendToken takes ten characters from each number drawn.
func (g *generator) appendToken(b []byte, n int) []byte {
	for n > 0 {
		v := g.r.Uint64()
		for range min(n, 10) {
			b = append(b, tokenDigits[v&63])
			v >>= 6
		}
		n -= min(n, 10)
	}
	return b
}
