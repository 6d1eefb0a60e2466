namespace NativeLora.Data.Tokenizers;

/// <summary>Normalizers, pre-tokenizers and decoders of a tokenizer.json.</summary>
internal static class TokenizerJsonParts
{
    public static Normalizer? Normalizer(JsonField field)
    {
        if (field.IsNull)
            return null;
        var type = field.Get("type").Text();
        switch (type)
        {
            case "Sequence":
                return new SequenceNormalizer([.. field.Get("normalizers").Items().Select(Normalizer).OfType<Normalizer>()]);
            case "BertNormalizer":
                var lowercase = field.Flag("lowercase", true);
                return new BertNormalizer(field.Flag("clean_text", true), field.Flag("handle_chinese_chars", true),
                    field.Flag("strip_accents", lowercase), lowercase);
            case "NFC" or "NFD" or "NFKC" or "NFKD":
                return new UnicodeFormNormalizer(compose: type[^1] == 'C', compatibility: type[2] == 'K');
            case "Lowercase":
                return new LowercaseNormalizer();
            case "Strip":
                return new StripNormalizer(field.Flag("strip_left", true), field.Flag("strip_right", true));
            case "StripAccents":
                return new StripAccentsNormalizer();
            case "Prepend":
                return new PrependNormalizer(field.Get("prepend").Text());
            case "Replace":
                return new ReplaceNormalizer(Pattern(field.Get("pattern")), field.Get("content").Text());
            case "Precompiled":
                var map = field.Get("precompiled_charsmap");
                return CharacterMapNormalizer.Parse(map.Bytes()) ?? throw map.Wrong("the character map is damaged");
            default:
                throw field.Wrong($"a normalizer of type '{Vocabulary.Shown(type)}' is not supported");
        }
    }

    public static PreTokenizer? PreTokenizer(JsonField field)
    {
        if (field.IsNull)
            return null;
        var type = field.Get("type").Text();
        return type switch
        {
            "Sequence" => new SequencePreTokenizer([.. field.Get("pretokenizers").Items().Select(PreTokenizer).OfType<PreTokenizer>()]),
            "BertPreTokenizer" => ClassPreTokenizer.Bert,
            "Whitespace" => ClassPreTokenizer.Whitespace,
            "WhitespaceSplit" => ClassPreTokenizer.WhitespaceSplit,
            "Digits" => field.Flag("individual_digits", false) ? ClassPreTokenizer.SingleDigits : ClassPreTokenizer.DigitRuns,
            "Punctuation" when field.TextOrNull("behavior") is null or "Isolated" => ClassPreTokenizer.Punctuation,
            "ByteLevel" => new ByteLevelPreTokenizer(field.Flag("add_prefix_space", true), field.Flag("use_regex", true)),
            "Metaspace" => new MetaspacePreTokenizer(field.Get("replacement").OneCharacter(), Prefix(field), field.Flag("split", true)),
            "Split" => new SplitPreTokenizer(Pattern(field.Get("pattern")), Behavior(field.Get("behavior")), field.Flag("invert", false)),
            _ => throw field.Wrong($"a pre-tokenizer of type '{Vocabulary.Shown(type)}' is not supported"),
        };
    }

    public static Decoder? Decoder(JsonField field)
    {
        if (field.IsNull)
            return null;
        var type = field.Get("type").Text();
        return type switch
        {
            "Sequence" => new SequenceDecoder([.. field.Get("decoders").Items().Select(Decoder).OfType<Decoder>()]),
            "ByteLevel" => new ByteLevelDecoder(),
            "WordPiece" => new WordPieceDecoder(field.TextOrNull("prefix") ?? "##", field.Flag("cleanup", true)),
            "Metaspace" => new MetaspaceDecoder(field.Get("replacement").OneCharacter(), Prefix(field) != MetaspacePrefix.Never),
            "BPEDecoder" => Suffix(field),
            "Replace" => new ReplaceDecoder(Pattern(field.Get("pattern")), field.Get("content").Text()),
            "ByteFallback" => new ByteFallbackDecoder(),
            "Fuse" => new FuseDecoder(),
            "Strip" => new StripDecoder(field.Get("content").OneCharacter(), field.Get("start").Number(), field.Get("stop").Number()),
            _ => throw field.Wrong($"a decoder of type '{Vocabulary.Shown(type)}' is not supported"),
        };
    }

    private static SuffixDecoder Suffix(JsonField field) => field.TextOrNull("suffix") switch
    {
        null => new SuffixDecoder("</w>"),
        "" => throw field.Wrong("the suffix is empty"),
        var suffix => new SuffixDecoder(suffix),
    };

    private static MetaspacePrefix Prefix(JsonField field) => field.TextOrNull("prepend_scheme") switch
    {
        "always" => MetaspacePrefix.Always,
        "first" => MetaspacePrefix.First,
        "never" => MetaspacePrefix.Never,
        null => field.Flag("add_prefix_space", true) ? MetaspacePrefix.Always : MetaspacePrefix.Never,
        var other => throw field.Wrong($"prepend_scheme '{Vocabulary.Shown(other)}' is not known"),
    };

    private static SplitBehavior Behavior(JsonField field) =>
        Enum.TryParse<SplitBehavior>(field.Text(), out var behavior) && Enum.IsDefined(behavior)
            ? behavior : throw field.Wrong($"the behavior '{Vocabulary.Shown(field.Text())}' is not known");

    private static TextPattern Pattern(JsonField field)
    {
        var text = field.Find("String");
        if (text.IsNull)
            return RegexPattern.Parse(field.Get("Regex"));
        return text.Text().Length > 0 ? new StringPattern(text.Text()) : throw text.Wrong("the pattern is empty");
    }
}
