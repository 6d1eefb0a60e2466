namespace NativeLora.Data.Tokenizers;

/// <summary>Tokenizers of folders from before tokenizer.json: vocab.txt, or vocab.json with merges.txt.</summary>
internal static class VocabularyFiles
{
    private static readonly string[] RobertaTypes = ["roberta", "xlm-roberta", "camembert", "longformer", "bart"];

    /// <summary>BERT's WordPiece.</summary>
    public static Pipeline WordPiece(string folder, SpecialNames names)
    {
        var file = Path.Combine(folder, "vocab.txt");
        var lines = TextFile.Lines(file);
        var vocabulary = new Vocabulary(file, lines.Length);
        for (var id = 0; id < lines.Length; id++)
            vocabulary.Add(lines[id], id);

        var settings = Path.Combine(folder, "tokenizer_config.json");
        var (lowercase, accents, ideographs) = File.Exists(settings)
            ? JsonField.Read(settings, root =>
            {
                var lower = root.Flag("do_lower_case", true);
                return (lower, root.Flag("strip_accents", lower), root.Flag("tokenize_chinese_chars", true));
            })
            : (true, true, true);
        int cls = Needed(vocabulary, file, names.Cls ?? "[CLS]"), sep = Needed(vocabulary, file, names.Sep ?? "[SEP]");
        var unknown = names.Unk ?? "[UNK]";
        var model = new WordPieceModel(vocabulary, Needed(vocabulary, file, unknown), "##", 100);
        string[] special = [names.Pad ?? "[PAD]", unknown, names.Cls ?? "[CLS]", names.Sep ?? "[SEP]", names.Mask ?? "[MASK]"];
        return new Pipeline(file, model, Special(vocabulary, special), new BertNormalizer(true, ideographs, accents, lowercase),
            ClassPreTokenizer.Bert, Template.Bert(cls, sep), new WordPieceDecoder("##", cleanUp: true));
    }

    /// <summary>Byte-level BPE: RoBERTa's special tokens or GPT-2's.</summary>
    public static Pipeline ByteLevelBpe(string folder, SpecialNames names)
    {
        var file = Path.Combine(folder, "vocab.json");
        var vocabulary = JsonField.Read(file, root =>
        {
            var read = new Vocabulary(file);
            foreach (var (token, id) in root.Members())
                read.Add(token, id.Number());
            return read;
        });
        var mergesFile = Path.Combine(folder, "merges.txt");
        var lines = TextFile.Lines(mergesFile);
        var firstLine = lines.Length > 0 && lines[0].StartsWith("#version", StringComparison.Ordinal) ? 1 : 0;
        var merges = new List<(string, string)>(lines.Length);
        for (var i = firstLine; i < lines.Length; i++)
        {
            if (lines[i].Length == 0 && i == lines.Length - 1)
                break;
            var sides = lines[i].Split(' ');
            if (sides.Length != 2 || sides[0].Length == 0 || sides[1].Length == 0)
                throw Wrong(i - firstLine, "should be two tokens with a space between");
            merges.Add((sides[0], sides[1]));
        }
        var settings = Path.Combine(folder, "tokenizer_config.json");
        var prefixSpace = File.Exists(settings) && JsonField.Read(settings, root => root.Flag("add_prefix_space", false));
        var roberta = IsRoberta(folder, vocabulary);
        var added = new List<AddedToken>();
        var template = Template.Plain;
        if (roberta)
        {
            string cls = names.Cls ?? "<s>", sep = names.Sep ?? "</s>", mask = names.Mask ?? "<mask>";
            template = Template.Roberta(Needed(vocabulary, file, cls), Needed(vocabulary, file, sep));
            added = Special(vocabulary, [names.Bos ?? "<s>", names.Pad ?? "<pad>", names.Eos ?? "</s>", names.Unk ?? "<unk>", cls, sep]);
            // The space before <mask> belongs to it, as in the tokenizer that the model was trained with.
            if (vocabulary.Find(mask) is { } maskId)
                added.Add(new AddedToken(mask, maskId, TakesLeft: true));
        }
        else
            added = Special(vocabulary, [.. new[] { "<|endoftext|>", names.Bos, names.Eos, names.Unk, names.Pad }.OfType<string>()]);
        return new Pipeline(file, new BpeModel(vocabulary, merges, Wrong, new BpeOptions()), added, null,
            new ByteLevelPreTokenizer(prefixSpace, usePattern: true), template, new ByteLevelDecoder());

        InputException Wrong(int index, string what) =>
            new($"{mergesFile}: line {index + firstLine + 1}: {what}; use the file that was saved with the model");
    }

    private static bool IsRoberta(string folder, Vocabulary vocabulary)
    {
        var config = Path.Combine(folder, "config.json");
        var type = File.Exists(config) ? JsonField.Read(config, root => root.TextOrNull("model_type")) : null;
        return type is null ? vocabulary.Find("<s>") is not null : RobertaTypes.Contains(type);
    }

    private static int Needed(Vocabulary vocabulary, string file, string token) => vocabulary.Find(token)
        ?? throw new InputException($"{file}: the special token '{Vocabulary.Shown(token)}' is missing; use the file that was saved with the model");

    private static List<AddedToken> Special(Vocabulary vocabulary, IEnumerable<string> tokens)
    {
        var added = new List<AddedToken>();
        foreach (var token in tokens.Distinct(StringComparer.Ordinal))
        {
            if (vocabulary.Find(token) is { } id && token.Length > 0)
                added.Add(new AddedToken(token, id));
        }
        return added;
    }
}
