using System.Diagnostics;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace NativeLora.Tests.Cli;

/// <summary>A fact that needs a browser; without it, it is skipped and says so.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class BrowserFactAttribute : FactAttribute
{
    public const string Chromium = "/usr/bin/chromium";
    public const string Driver = "/usr/bin/chromedriver";

    public BrowserFactAttribute()
    {
        if (!File.Exists(Chromium) || !File.Exists(Driver))
            Skip = $"there is no browser here ({Chromium} and {Driver}; Debian: apt-get install chromium chromium-driver)";
    }
}

/// <summary>The page of <c>nativelora report</c> in a real browser.</summary>
[Collection(ReportCollection.Name)]
public sealed partial class ReportBrowserTests(ReportRuns runs)
{
    private const string Wide = """
        return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && !e.closest('svg') && !e.classList.contains('skip'))
            .filter(e => { const r = e.getBoundingClientRect(); return r.width > 0 && (r.right > document.documentElement.clientWidth + 1 || r.left < -1); }).map(e => e.tagName + ' ' + e.id)
        """;

    // Contrast of words and of marks against what is behind them (WCAG 2.2, 1.4.3 and 1.4.11).
    private const string Contrast = """
        const rgb = c => c.match(/[\d.]+/g).map(Number);
        const lum = c => { const f = rgb(c).slice(0, 3).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * f[0] + .7152 * f[1] + .0722 * f[2]; };
        const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (rgb(c).length < 4 || rgb(c)[3] > 0) return c; } };
        const ratio = (a, b) => (Math.max(lum(a), lum(b)) + .05) / (Math.min(lum(a), lum(b)) + .05);
        const words = [...document.querySelectorAll('h1,h2,h3,p,li,a,td,th,caption,figcaption,strong')].map(e => ratio(getComputedStyle(e).color, behind(e)));
        const root = getComputedStyle(document.documentElement), probe = document.createElement('i');
        document.body.append(probe);
        const marks = [0, 1, 2, 3, 4, 5].map(i => { probe.style.color = `var(--ink${i})`; return ratio(getComputedStyle(probe).color, behind(document.body)); });
        probe.remove();
        return [Math.min(...words), Math.min(...marks), getComputedStyle(document.body).backgroundColor]
        """;

    [BrowserFact]
    public async Task Page_fits_screens_and_paper_and_has_names_for_everything()
    {
        using var browser = await Browser.Start(runs.File("profile"));
        await browser.Post("url", new { url = new Uri(runs.Page).AbsoluteUri });
        foreach (var width in (int[])[320, 768, 1280])
        {
            await browser.Cdp("Emulation.setDeviceMetricsOverride", new { width, height = 900, deviceScaleFactor = 1, mobile = false });
            var sizes = await browser.Script("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]");
            Assert.True(sizes[0].GetInt32() <= sizes[1].GetInt32(), $"at {width} the page is {sizes[0]} wide on a screen of {sizes[1]}");
            Assert.Equal(0, (await browser.Script(Wide)).GetArrayLength());
        }
        foreach (var (scheme, dark) in new[] { ("light", false), ("dark", true) })
        {
            await browser.Cdp("Emulation.setEmulatedMedia", new { media = "screen", features = new[] { new { name = "prefers-color-scheme", value = scheme } } });
            var contrast = await browser.Script(Contrast);
            Assert.True(contrast[0].GetDouble() >= 4.5, $"{scheme}: words have a contrast of {contrast[0]}");
            Assert.True(contrast[1].GetDouble() >= 3, $"{scheme}: marks have a contrast of {contrast[1]}");
            Assert.Equal(dark, contrast[2].GetString() == "rgb(15, 20, 25)");
        }

        // Paper, 210 mm less margins: light, and no table or picture wider than it.
        await browser.Cdp("Emulation.setDeviceMetricsOverride", new { width = 688, height = 1000, deviceScaleFactor = 1, mobile = false });
        await browser.Cdp("Emulation.setEmulatedMedia", new { media = "print", features = new[] { new { name = "prefers-color-scheme", value = "dark" } } });
        Assert.Equal("rgb(255, 255, 255)", (await browser.Script("return [getComputedStyle(document.body).backgroundColor]"))[0].GetString());
        var cut = await browser.Script("return [...document.querySelectorAll('table,svg,figcaption,p')].filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1 || getComputedStyle(e.parentElement).overflowX !== 'visible').map(e => e.id || e.textContent.slice(0, 60))");
        Assert.True(cut.GetArrayLength() == 0, cut.GetRawText());
        var pdf = await browser.Post("print", new { });
        Assert.StartsWith("%PDF-", System.Text.Encoding.ASCII.GetString(Convert.FromBase64String(pdf.GetString()!).AsSpan(0, 8)), StringComparison.Ordinal);

        await browser.Cdp("Emulation.setEmulatedMedia", new { media = "screen" });
        foreach (var (selector, role) in new[] { ("svg", "img"), ("table", "table"), ("div.scroll", "region"), ("section", "region"), ("nav", "navigation") })
        {
            var elements = await browser.Post("elements", new Dictionary<string, string> { ["using"] = "css selector", ["value"] = selector });
            Assert.True(elements.GetArrayLength() > 0);
            // A few of each: every one costs a round trip.
            foreach (var element in elements.EnumerateArray().Take(6))
            {
                var id = element.EnumerateObject().First().Value.GetString();
                Assert.Contains((await browser.Get($"element/{id}/computedrole")).GetString(), (string[])[role, role == "img" ? "image" : role]);
                Assert.False(string.IsNullOrWhiteSpace((await browser.Get($"element/{id}/computedlabel")).GetString()), $"{selector} has no name");
            }
        }
        var log = await browser.Post("se/log", new { type = "browser" });
        Assert.True(log.GetArrayLength() == 0, log.GetRawText());
    }

    /// <summary>Chromium behind chromedriver, over plain HTTP.</summary>
    private sealed partial class Browser : IDisposable
    {
        private readonly Process _driver;
        private readonly HttpClient _client;
        private string _session = "";

        private Browser(Process driver, int port) => (_driver, _client) = (driver, new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{port}/"), Timeout = TimeSpan.FromMinutes(2) });

        public static async Task<Browser> Start(string profile)
        {
            var driver = Process.Start(new ProcessStartInfo(BrowserFactAttribute.Driver, ["--port=0"]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
            var port = 0;
            while (port == 0)
                port = await driver.StandardOutput.ReadLineAsync() is { } line ? Port().Match(line) is { Success: true } found ? int.Parse(found.Groups[1].Value, System.Globalization.CultureInfo.InvariantCulture) : 0
                    : throw new InvalidOperationException("chromedriver does not start");
            var browser = new Browser(driver, port);
            try
            {
                var session = await browser.Send(HttpMethod.Post, "session", new
                {
                    capabilities = new
                    {
                        alwaysMatch = new Dictionary<string, object>
                        {
                            ["goog:chromeOptions"] = new
                            {
                                binary = BrowserFactAttribute.Chromium,
                                args = (string[])["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", $"--user-data-dir={profile}"],
                            },
                            ["goog:loggingPrefs"] = new { browser = "ALL" },
                        },
                    },
                });
                browser._session = $"session/{session.GetProperty("sessionId").GetString()}/";
                return browser;
            }
            catch
            {
                browser.Dispose();
                throw;
            }
        }

        public Task<JsonElement> Post(string path, object body) => Send(HttpMethod.Post, _session + path, body);

        public Task<JsonElement> Get(string path) => Send(HttpMethod.Get, _session + path, null);

        public Task<JsonElement> Cdp(string cmd, object parameters) => Post("goog/cdp/execute", new Dictionary<string, object> { ["cmd"] = cmd, ["params"] = parameters });

        public Task<JsonElement> Script(string script) => Post("execute/sync", new { script, args = Array.Empty<object>() });

        private async Task<JsonElement> Send(HttpMethod method, string path, object? body)
        {
            using var request = new HttpRequestMessage(method, path);
            if (body is not null)
                request.Content = new StringContent(JsonSerializer.Serialize(body), System.Text.Encoding.UTF8, "application/json");
            using var answer = await _client.SendAsync(request);
            var value = (await answer.Content.ReadFromJsonAsync<JsonElement>()).GetProperty("value");
            Assert.True(answer.IsSuccessStatusCode, value.GetRawText());
            return value;
        }

        [GeneratedRegex("on port ([0-9]+)")]
        private static partial Regex Port();

        public void Dispose()
        {
            try
            {
                if (_session.Length > 0)
                    _client.DeleteAsync(_session.TrimEnd('/')).Wait(10_000);
            }
            catch (AggregateException)
            {
                // It is ended below in any case.
            }
            _client.Dispose();
            if (!_driver.HasExited)
                _driver.Kill(entireProcessTree: true);
            _driver.Dispose();
        }
    }
}
