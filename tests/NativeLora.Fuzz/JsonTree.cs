using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace NativeLora.Fuzz;

/// <summary>Changes JSON so that it stays JSON: what is wrong with it then is its meaning.</summary>
internal static class JsonTree
{
    private static readonly string[] Values =
    [
        "0", "1", "-1", "2", "3", "7", "64", "255", "4096", "65536", "2147483647", "2147483648", "-2147483648", "4294967296", "9223372036854775807", "1e308", "1e999", "0.5", "1e-9", "null", "true", "false", "[]", "{}", "\"\"", "\" \"",
        "\"a\"", "\"../x\"", "\"/etc/hostname\"", "\"\\u0000\"", "\"\\n\"", "\"\\u2028\"", "\"\\ud800\"", "\"é\"", "\"😀\"", "\"(a+)+$\"", "\"(\"", "[null]", "[0]", "[-1]", "[1,1]", "[\"a\"]", "[\"a\",\"a\"]", "[[]]", "{\"a\":null}", "{\"\":0}", "{\"0\":\"a\",\"1\":\"a\"}",
    ];

    /// <summary>Another document; null where this is none.</summary>
    public static byte[]? Change(byte[] text, Random random, IReadOnlyList<string> words)
    {
        try
        {
            var root = JsonNode.Parse(text, documentOptions: new JsonDocumentOptions { MaxDepth = 200 });
            var places = new List<(JsonNode Parent, string? Name, int Index)>();
            Collect(root, places);
            if (places.Count == 0)
                return null;
            var (parent, name, index) = places[random.Next(places.Count)];
            switch (random.Next(7))
            {
                case 0:
                    if (parent is JsonObject gone)
                        gone.Remove(name!);
                    else
                        ((JsonArray)parent).RemoveAt(index);
                    break;
                case 1 when parent is JsonArray list:
                    for (var copies = random.Next(4) == 0 ? 80 : 1; copies > 0; copies--)
                        list.Add(list[index]?.DeepClone());
                    break;
                case 1 or 2:
                    var (other, otherName, otherIndex) = places[random.Next(places.Count)];
                    Set(parent, name, index, (other is JsonObject o ? o[otherName!] : other[otherIndex])?.DeepClone());
                    break;
                case 3 when parent is JsonObject named:
                    var value = named[name!]?.DeepClone();
                    named.Remove(name!);
                    named[Name(random, words, name!)] = value;
                    break;
                default:
                    Set(parent, name, index, Value(random, words));
                    break;
            }
            return Encoding.UTF8.GetBytes(root!.ToJsonString());
        }
        // Names that stand twice, halves of surrogate pairs, numbers beyond all types: other changes are for those.
        catch (Exception e) when (e is JsonException or ArgumentException or InvalidOperationException or FormatException)
        {
            return null;
        }
    }

    private static void Set(JsonNode parent, string? name, int index, JsonNode? value)
    {
        if (parent is JsonObject named)
            named[name!] = value;
        else
            parent[index] = value;
    }

    private static JsonNode? Value(Random random, IReadOnlyList<string> words)
    {
        var at = random.Next(Values.Length + words.Count);
        var text = at < Values.Length ? Values[at] : words[at - Values.Length];
        try
        {
            return JsonNode.Parse(text);
        }
        catch (JsonException)
        {
            return text;
        }
    }

    private static string Name(Random random, IReadOnlyList<string> words, string name) => random.Next(4) switch
    {
        0 => name + random.Next(3),
        1 => "",
        2 => "../" + name,
        _ => words.Count == 0 ? "a" : words[random.Next(words.Count)].Trim('"'),
    };

    private static void Collect(JsonNode? node, List<(JsonNode, string?, int)> places)
    {
        if (node is JsonObject named)
            foreach (var (name, value) in named)
            {
                places.Add((named, name, 0));
                Collect(value, places);
            }
        else if (node is JsonArray list)
            for (var i = 0; i < list.Count; i++)
            {
                places.Add((list, null, i));
                Collect(list[i], places);
            }
    }
}
