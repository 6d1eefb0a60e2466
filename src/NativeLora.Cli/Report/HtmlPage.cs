using System.Globalization;
using System.Text;
using System.Xml;
using System.Xml.Linq;

namespace NativeLora.Cli.Report;

/// <summary>
/// Writes a report as one HTML page that needs nothing else: no script, no network, no file beside it. It is well-formed XML too. What comes
/// from files goes through <see cref="XText"/> and <see cref="XAttribute"/>, which escape it.
/// </summary>
internal static class HtmlPage
{
    // A table with more columns is cut into several below one another: narrow screens and paper are not wide enough.
    private const int MostColumns = 9;

    // Longer words than these need a column that is not the narrowest possible.
    private const int LongWords = 12;

    public static string Of(ReportPage page)
    {
        var html = new XElement("html", new XAttribute("lang", "en"),
            new XElement("head",
                new XElement("meta", new XAttribute("charset", "utf-8")),
                new XElement("meta", new XAttribute("name", "viewport"), new XAttribute("content", "width=device-width, initial-scale=1")),
                new XElement("meta", new XAttribute("name", "color-scheme"), new XAttribute("content", "light dark")),
                new XElement("meta", new XAttribute("http-equiv", "Content-Security-Policy"), new XAttribute("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:")),
                new XElement("title", page.Title),
                new XElement("style", Css.Replace("/*light*/", Ink.Css(dark: false), StringComparison.Ordinal).Replace("/*dark*/", Ink.Css(dark: true), StringComparison.Ordinal))),
            new XElement("body",
                new XElement("a", new XAttribute("class", "skip"), new XAttribute("href", "#main"), "Skip to the report"),
                new XElement("header", new XElement("h1", page.Title), new XElement("p", page.Lead)),
                new XElement("nav", new XAttribute("aria-label", "Sections"),
                    new XElement("ul", page.Sections.Select(s => new XElement("li", new XElement("a", new XAttribute("href", $"#{s.Id}"), s.Title))))),
                new XElement("main", new XAttribute("id", "main"), page.Sections.Select(Section))));
        var text = new StringBuilder("<!DOCTYPE html>\n");
        using (var writer = XmlWriter.Create(text, new XmlWriterSettings { OmitXmlDeclaration = true, ConformanceLevel = ConformanceLevel.Fragment, NewLineChars = "\n" }))
            html.WriteTo(writer);
        return text.Append('\n').ToString();
    }

    private static XElement Section(ReportSection section) => new("section", new XAttribute("id", section.Id), new XAttribute("aria-labelledby", $"{section.Id}-h"),
        new XElement("h2", new XAttribute("id", $"{section.Id}-h"), section.Title), section.Parts.SelectMany(Part));

    private static IEnumerable<XElement> Part(ReportPart part) => part switch
    {
        ReportHeading heading => [new XElement("h3", heading.Text)],
        ReportText { IsWarning: true } text => [new XElement("p", new XAttribute("class", "warning"), new XElement("strong", "Note: "), text.Text)],
        ReportText text => [new XElement("p", text.Text)],
        ReportList list => [new XElement("ul", list.Items.Select(i => new XElement("li", i)))],
        ReportTable table => Tables(table),
        ReportPicture picture => [Figure(picture)],
        _ => throw new ArgumentException($"{part.GetType().Name} cannot be shown", nameof(part)),
    };

    private static XElement Figure(ReportPicture picture) => new("figure", new XAttribute("id", $"fig-{picture.Id}"),
        new XElement("figcaption", new XElement("strong", picture.Title + "."), " ", picture.Description),
        new XElement("div", new XAttribute("class", "scroll"), new XAttribute("tabindex", "0"), new XAttribute("role", "region"), new XAttribute("aria-label", $"Picture: {picture.Title}"),
            WithoutNamespace(Picture.Inline(picture))),
        Tables(picture.Table));

    private static IEnumerable<XElement> Tables(ReportTable table)
    {
        var parts = Math.Max(1, (table.Columns.Count - 1 + MostColumns - 2) / (MostColumns - 1));
        var each = (table.Columns.Count - 1 + parts - 1) / parts;
        for (var p = 0; p < parts; p++)
        {
            int[] columns = [0, .. Enumerable.Range(1 + (p * each), Math.Min(each, table.Columns.Count - 1 - (p * each)))];
            var id = parts == 1 ? table.Id : string.Create(CultureInfo.InvariantCulture, $"{table.Id}-{p + 1}");
            var more = parts == 1 ? "" : string.Create(CultureInfo.InvariantCulture, $" (part {p + 1} of {parts})");
            // What is too wide for a screen is scrolled within, also with the keyboard.
            yield return new XElement("div", new XAttribute("class", "scroll"), new XAttribute("tabindex", "0"), new XAttribute("role", "region"), new XAttribute("aria-labelledby", $"{id}-c"),
                new XElement("table", new XAttribute("id", id),
                    new XElement("caption", new XAttribute("id", $"{id}-c"), table.Caption + more),
                    new XElement("thead", new XElement("tr", columns.Select(c => new XElement("th", new XAttribute("scope", "col"), IsNumeric(table, c) ? new XAttribute("class", "n") : null, table.Columns[c])))),
                    new XElement("tbody", table.Rows.Select(row => new XElement("tr", columns.Select(c => Cell(row[c], c == 0)))))));
        }
    }

    private static bool IsNumeric(ReportTable table, int column) => column > 0 && table.Rows.Any(r => r[column].IsNumber);

    private static XElement Cell(ReportCell cell, bool isHead) =>
        isHead ? new XElement("th", new XAttribute("scope", "row"), cell.Text)
        : cell.Value is { } value ? new XElement("td", new XAttribute("class", "n"), new XElement("data", new XAttribute("value", value.ToString("R", CultureInfo.InvariantCulture)), cell.Text))
        : new XElement("td", cell.Text == Cells.None ? new XAttribute("class", "n") : cell.Text.Length > LongWords ? new XAttribute("class", "w") : null, cell.Text);

    // In HTML a picture's elements are known by their names.
    private static XElement WithoutNamespace(XElement element) => new(element.Name.LocalName,
        element.Attributes().Where(a => !a.IsNamespaceDeclaration).Select(a => new XAttribute(a.Name.LocalName, a.Value)),
        element.Nodes().Select(n => n is XElement child ? WithoutNamespace(child) : n));

    // A rule a line; no ">" or "&", which XML would write in another way than a style sheet reads it.
    private const string Css = """

        :root{color-scheme:light dark;--ink:#1f2328;--soft:#57606a;--paper:#ffffff;--line:#d0d7de;--band:#f6f8fa;--link:#0550ae;--warn:#7a3e00;/*light*/}
        @media screen and (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#a5afba;--paper:#0f1419;--line:#3d444d;--band:#171d24;--link:#79b8ff;--warn:#ffb77c;/*dark*/}}
        *{box-sizing:border-box}
        html{-webkit-text-size-adjust:100%}
        body{margin:0 auto;padding:1.5rem clamp(.75rem,4vw,2.5rem) 4rem;max-width:60rem;color:var(--ink);background:var(--paper);font:1rem/1.55 system-ui,-apple-system,"Segoe UI","DejaVu Sans",Verdana,sans-serif;overflow-wrap:anywhere}
        h1{font-size:1.7rem;line-height:1.25;margin:.2em 0 .4em}
        h2{font-size:1.35rem;line-height:1.3;margin:2.6rem 0 .6rem;padding-top:.6rem;border-top:2px solid var(--line)}
        h3{font-size:1.1rem;margin:2rem 0 .5rem}
        p,ul{margin:.6rem 0;max-width:46rem}
        a{color:var(--link)}
        a:focus-visible,.scroll:focus-visible{outline:3px solid var(--link);outline-offset:2px}
        .skip{position:absolute;left:-999px}
        .skip:focus{position:static}
        nav ul{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;list-style:none;padding:0;max-width:none}
        .warning{border-left:4px solid var(--warn);padding:.3rem .8rem;background:var(--band)}
        .warning strong{color:var(--warn)}
        figure{margin:1.6rem 0 2.2rem}
        figcaption{max-width:46rem;margin-bottom:.5rem}
        svg{display:block;width:100%;height:auto;max-width:47.5rem;color:var(--ink)}
        .scroll{overflow-x:auto;margin:.8rem 0 1.4rem}
        @media screen and (max-width:36rem){svg{min-width:34rem}}
        table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
        caption{text-align:left;color:var(--soft);padding:.2rem 0;overflow-wrap:anywhere}
        th,td{padding:.22rem .7rem .22rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line);font-weight:400;overflow-wrap:normal}
        thead th{font-weight:600;vertical-align:bottom;border-bottom:2px solid var(--line)}
        .n{text-align:right;white-space:nowrap}
        thead .n{white-space:normal;overflow-wrap:break-word}
        .w{min-width:9rem}
        @media print{
        @page{margin:14mm}
        :root{color-scheme:light}
        body{max-width:none;padding:0;font-size:10pt}
        nav,.skip{display:none}
        .scroll{overflow:visible}
        table{font-size:8pt;width:100%}
        thead{display:table-header-group}
        tr,svg,figcaption{break-inside:avoid}
        h2,h3,figcaption,caption{break-after:avoid}
        svg{max-width:100%;max-height:150mm}
        a{color:inherit;text-decoration:none}
        }

        """;
}
